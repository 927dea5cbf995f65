"""The library: making, changing, deleting, opening, sharing, pictures."""

import re
from typing import Any

import httpx
import pytest

from invokeclone.workflows import service
from tests.applications import decode_image, encode_image, sample_image
from tests.busy_storage import busy_storage
from tests.workflows.drawing import callable_workflow, node, workflow

WORKFLOWS = "/api/v1/workflows"
IMAGE = {"image": ("a.png", encode_image(sample_image(size=(300, 600))), "image/png")}
MISSING = {"is_callable": False, "reason": "missing_workflow_return"}


async def make(client: httpx.AsyncClient, name: str = "w", **fields: Any) -> dict[str, Any]:
    answer = await client.post(f"{WORKFLOWS}/", json={"workflow": workflow(name, **fields)})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def add_default(resources, name: str = "default_one", **fields: Any) -> str:
    """Have a default workflow in the library, as a start puts it there."""
    import json

    folder = resources.settings.root / "defaults"
    folder.mkdir(exist_ok=True)
    text = json.dumps({"id": name, **workflow(name, category="default", **fields)})
    (folder / f"{name}.json").write_text(text)
    await service.start(resources, folder)
    return name


async def test_new_workflow_has_all_fields(client) -> None:
    sent = workflow("Wä", tags="a, b", nodes=[node("n", "integer", value=1)])
    record = (await client.post(f"{WORKFLOWS}/", json={"workflow": {**sent, "unknown": 1}})).json()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", record["created_at"])
    assert record == {
        "workflow_id": record["workflow_id"],
        "name": "Wä",
        "created_at": record["created_at"],
        "updated_at": record["created_at"],
        "opened_at": None,
        "user_id": "system",
        "is_public": True,
        "is_published": None,
        "workflow": {**sent, "id": record["workflow_id"]},
    }
    got = (await client.get(f"{WORKFLOWS}/i/{record['workflow_id']}")).json()
    message = got["call_saved_workflow_compatibility"].pop("message")
    assert got == {**record, "thumbnail_url": None, "call_saved_workflow_compatibility": MISSING}
    assert message


async def test_a_workflow_of_the_older_version(client) -> None:
    record = await make(client, category="project", is_published=False)
    assert record["workflow"]["meta"]["category"] == "project"
    assert record["workflow"]["is_published"] is False
    listed = (await client.get(f"{WORKFLOWS}/", params={"categories": "project"})).json()["items"]
    assert [(item["workflow_id"], item["is_published"]) for item in listed] == [(record["workflow_id"], None)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"category": "default"},
        {"category": "nobody's"},
        {"meta": {"version": "three", "category": "user"}},
        {"nodes": [node("a", "workflow_return"), node("b", "workflow_return")]},
        {"name": None},
        {"tags": ["a"]},
        {"name": "\ud800"},
        {"nodes": [{"\ud800": "\ud800"}]},
        {"form": []},
    ],
)
async def test_invalid_workflows_are_422_and_not_stored(client, wrong: dict[str, Any]) -> None:
    """The reference answers 500 to the category of its own workflows."""
    import json

    sent = json.dumps({"workflow": workflow(**wrong) if "name" not in wrong else {**workflow(), **wrong}})
    headers = {"content-type": "application/json"}
    assert (await client.post(f"{WORKFLOWS}/", content=sent, headers=headers)).status_code == 422
    record = await make(client)
    changed_workflow = {**json.loads(sent)["workflow"], "id": record["workflow_id"]}
    answer = await client.patch(
        f"{WORKFLOWS}/i/{record['workflow_id']}", content=json.dumps({"workflow": changed_workflow}), headers=headers
    )
    assert answer.status_code == 422
    assert (await client.get(f"{WORKFLOWS}/")).json()["total"] == 1


async def test_workflow_is_updated(client, events) -> None:
    record = await make(client, "before", tags="old")
    sent = {**record["workflow"], "name": "after", "description": "new", "tags": "new"}
    changed = (await client.patch(f"{WORKFLOWS}/i/{record['workflow_id']}", json={"workflow": sent})).json()
    assert changed == {**record, "name": "after", "updated_at": changed["updated_at"], "workflow": sent}
    (listed,) = (await client.get(f"{WORKFLOWS}/")).json()["items"]
    assert [listed[key] for key in ("name", "description", "tags")] == ["after", "new", "new"]
    assert events.names() == ["workflow_created", "workflow_updated"]


async def test_workflow_id_in_the_body_selects_the_updated_workflow(client) -> None:
    """As in the reference, whose contract gives this route no parameter in its address."""
    first, second = await make(client, "first"), await make(client, "second")
    sent = {**second["workflow"], "name": "changed"}
    answer = await client.patch(f"{WORKFLOWS}/i/{first['workflow_id']}", json={"workflow": sent})
    assert (answer.json()["workflow_id"], answer.json()["name"]) == (second["workflow_id"], "changed")
    assert (await client.get(f"{WORKFLOWS}/i/{first['workflow_id']}")).json()["name"] == "first"


async def test_workflow_is_deleted(client, settings, events) -> None:
    record = await make(client)
    url = f"{WORKFLOWS}/i/{record['workflow_id']}"
    await client.put(f"{url}/thumbnail", files=IMAGE)
    deletion = await client.delete(url)
    assert (deletion.status_code, deletion.json()) == (200, None)
    assert list(settings.workflow_thumbnails_path.iterdir()) == []
    assert (await client.get(url)).status_code == 404
    assert (await client.get(f"{url}/thumbnail")).status_code == 404
    assert events.names() == ["workflow_created", "workflow_deleted"]


async def test_a_workflow_is_deleted_although_the_storage_is_busy(client, events) -> None:
    url = f"{WORKFLOWS}/i/{(await make(client))['workflow_id']}"
    await client.put(f"{url}/thumbnail", files=IMAGE)
    with busy_storage():
        assert (await client.delete(url)).status_code == 200
    assert (await client.get(url)).status_code == 404
    assert events.names() == ["workflow_created", "workflow_deleted"]


async def test_missing_workflows_are_404(client) -> None:
    """Among these the reference answers 500 to pictures, and in 6.8.1 to deleting."""
    url = f"{WORKFLOWS}/i/nope"
    assert (await client.get(url)).status_code == 404
    assert (await client.patch(url, json={"workflow": {**workflow(), "id": "nope"}})).status_code == 404
    assert (await client.delete(url)).status_code == 404
    assert (await client.put(f"{url}/opened_at")).status_code == 404
    assert (await client.patch(f"{url}/is_public", json={"is_public": True})).status_code == 404
    assert (await client.put(f"{url}/thumbnail", files=IMAGE)).status_code == 404
    assert (await client.get(f"{url}/thumbnail")).status_code == 404
    assert (await client.delete(f"{url}/thumbnail")).status_code == 404


async def test_default_workflows_cannot_be_changed(client, resources) -> None:
    """The reference answers 500 to each of these."""
    name = await add_default(resources)
    url = f"{WORKFLOWS}/i/{name}"
    before = (await client.get(url)).json()
    sent = {**workflow(), "id": name}
    assert (await client.patch(url, json={"workflow": sent})).status_code == 403
    assert (await client.delete(url)).status_code == 403
    assert (await client.patch(f"{url}/is_public", json={"is_public": True})).status_code == 403
    assert (await client.put(f"{url}/thumbnail", files=IMAGE)).status_code == 403
    assert (await client.delete(f"{url}/thumbnail")).status_code == 403
    assert (await client.get(url)).json() == before


async def test_opening_sets_opened_at_and_keeps_updated_at(client) -> None:
    record = await make(client)
    url = f"{WORKFLOWS}/i/{record['workflow_id']}"
    answer = await client.put(f"{url}/opened_at")
    assert (answer.status_code, answer.json()) == (200, None)
    after = (await client.get(url)).json()
    assert after["opened_at"] >= record["created_at"]
    assert after["updated_at"] == record["updated_at"]


async def test_sharing_shows_in_the_tags(client, events) -> None:
    record = await make(client, tags="b,a")
    url = f"{WORKFLOWS}/i/{record['workflow_id']}/is_public"
    private = (await client.patch(url, json={"is_public": False})).json()
    assert (private["is_public"], private["workflow"]["tags"]) == (False, "b,a")
    for _ in range(2):
        public = (await client.patch(url, json={"is_public": True})).json()
        assert (public["is_public"], public["workflow"]["tags"]) == (True, "b, a, shared")
    assert (await client.get(f"{WORKFLOWS}/tags")).json() == ["a", "b", "shared"]
    private = (await client.patch(url, json={"is_public": False})).json()
    assert (private["is_public"], private["workflow"]["tags"]) == (False, "b, a")
    changes = [(event.old_is_public, event.new_is_public) for event in events.sent[1:]]
    assert changes == [(True, False), (False, True), (True, True), (True, False)]
    assert (await client.patch(url, json={"is_public": "perhaps"})).status_code == 422


async def test_sharing_keeps_the_call_compatibility(client) -> None:
    record = (await client.post(f"{WORKFLOWS}/", json={"workflow": callable_workflow()})).json()
    url = f"{WORKFLOWS}/i/{record['workflow_id']}"
    await client.patch(f"{url}/is_public", json={"is_public": False})
    assert (await client.get(url)).json()["call_saved_workflow_compatibility"]["is_callable"] is True


async def test_thumbnail_is_served_replaced_and_deleted(client, settings) -> None:
    record = await make(client)
    url = f"{WORKFLOWS}/i/{record['workflow_id']}"
    answer = await client.put(f"{url}/thumbnail", files=IMAGE)
    assert (answer.status_code, answer.json()) == (200, None)
    address = (await client.get(url)).json()["thumbnail_url"]
    assert re.fullmatch(rf"api/v1/workflows/i/{record['workflow_id']}/thumbnail\?\w+", address)
    assert (await client.get(f"{WORKFLOWS}/")).json()["items"][0]["thumbnail_url"] == address
    got = await client.get(f"/{address}")
    assert got.headers["content-type"] == "image/png"
    assert got.headers["cache-control"] == "max-age=31536000"
    assert decode_image(got.content).size == (128, 256)
    assert (settings.workflow_thumbnails_path / f"{record['workflow_id']}.webp").read_bytes() == got.content
    await client.put(f"{url}/thumbnail", files=IMAGE)
    assert (await client.get(url)).json()["thumbnail_url"] != address
    deletion = await client.delete(f"{url}/thumbnail")
    assert (deletion.status_code, deletion.json()) == (200, None)
    assert (await client.get(url)).json()["thumbnail_url"] is None
    assert (await client.get(f"{url}/thumbnail")).status_code == 404
    assert (await client.delete(f"{url}/thumbnail")).status_code == 404


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"text", "text/plain"), (b"text", "image/png"), (encode_image(sample_image()), "application/octet-stream")],
)
async def test_invalid_thumbnails_are_415_and_change_nothing(client, data: bytes, kind: str) -> None:
    record = await make(client)
    url = f"{WORKFLOWS}/i/{record['workflow_id']}"
    await client.put(f"{url}/thumbnail", files=IMAGE)
    before = (await client.get(url)).json()
    assert (await client.put(f"{url}/thumbnail", files={"image": ("a", data, kind)})).status_code == 415
    assert (await client.get(url)).json() == before


async def test_thumbnail_paths_cannot_escape_the_folder(client, settings) -> None:
    settings.workflow_thumbnails_path.mkdir(parents=True)
    (settings.root / "secret.webp").write_text("secret")
    for name in ("..%2Fsecret", "%2E%2E%2Fsecret", "../secret"):
        assert (await client.get(f"{WORKFLOWS}/i/{name}/thumbnail")).status_code == 404
