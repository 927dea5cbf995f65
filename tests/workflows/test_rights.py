"""Who reads and changes which workflow, and who gets events about it."""

import httpx
import pytest

from tests.workflows.drawing import workflow
from tests.workflows.test_library import IMAGE, WORKFLOWS, add_default, make


async def names(client: httpx.AsyncClient, **params: object) -> set[str]:
    return {item["name"] for item in (await client.get(f"{WORKFLOWS}/", params=params)).json()["items"]}


async def share(client: httpx.AsyncClient, workflow_id: str, *, is_public: bool = True) -> httpx.Response:
    return await client.patch(f"{WORKFLOWS}/i/{workflow_id}/is_public", json={"is_public": is_public})


async def test_lists_contain_own_and_default_workflows(people, resources) -> None:
    ann, bob, admin = people["ann"], people["bob"], people["root"]
    record = await make(ann, "ann's", tags="t")
    assert (record["user_id"], record["is_public"]) == ("ann", False)
    await make(bob, "bob's", tags="t, u")
    await share(bob, (await make(bob, "bob's shared"))["workflow_id"])
    await add_default(resources, tags="d")
    assert await names(ann) == {"ann's", "default_one"}
    assert await names(ann, is_public=True) == {"bob's shared"}
    assert await names(bob) == {"bob's", "bob's shared", "default_one"}
    assert await names(bob, is_public=False, categories=["user"]) == {"bob's"}
    assert await names(admin) == {"ann's", "bob's", "bob's shared", "default_one"}

    async def get(who: httpx.AsyncClient, what: str, **params: object) -> object:
        return (await who.get(f"{WORKFLOWS}/{what}", params=params)).json()

    assert await get(ann, "tags") == ["d", "t"]
    assert await get(admin, "tags") == ["d", "shared", "t", "u"]
    assert await get(ann, "counts_by_tag", tags=["t", "u"]) == {"t": 1, "u": 0}
    assert await get(ann, "counts_by_category", categories=["user", "default"]) == {"user": 1, "default": 1}
    assert await get(ann, "counts_by_category", categories=["user"], is_public=True) == {"user": 1}
    assert await get(admin, "counts_by_category", categories=["user"]) == {"user": 3}


async def test_other_users_read_shared_workflows_and_change_none(people) -> None:
    ann, bob, admin = people["ann"], people["bob"], people["root"]
    record = await make(ann)
    url = f"{WORKFLOWS}/i/{record['workflow_id']}"

    async def check_refusals(*, reading: bool) -> None:
        sent = {"workflow": {**record["workflow"], "name": "mine"}}
        answers = [
            await bob.patch(url, json=sent),
            await bob.delete(url),
            await share(bob, record["workflow_id"]),
            await bob.put(f"{url}/thumbnail", files=IMAGE),
            await bob.delete(f"{url}/thumbnail"),
        ]
        if reading:
            answers += [await bob.get(url), await bob.put(f"{url}/opened_at")]
        assert {answer.status_code for answer in answers} == {403}

    await check_refusals(reading=True)
    await share(ann, record["workflow_id"])
    await check_refusals(reading=False)
    assert (await bob.get(url)).status_code == 200
    assert (await bob.put(f"{url}/opened_at")).status_code == 200
    assert (await ann.get(url)).json()["name"] == "w"
    changed = await admin.patch(url, json={"workflow": {**record["workflow"], "name": "of root"}})
    assert (changed.json()["user_id"], changed.json()["name"]) == ("ann", "of root")
    assert (await ann.put(f"{url}/thumbnail", files=IMAGE)).status_code == 200
    assert (await admin.delete(url)).status_code == 200


async def test_path_of_an_own_workflow_gives_no_access_to_another(people) -> None:
    """The reference asks for rights to the workflow that is sent, and so it is here."""
    ann, bob = people["ann"], people["bob"]
    hers, his = await make(ann), await make(bob)
    answer = await bob.patch(f"{WORKFLOWS}/i/{his['workflow_id']}", json={"workflow": hers["workflow"]})
    assert answer.status_code == 403


async def test_default_workflows_are_readable_by_all_and_read_only(people, resources) -> None:
    url = f"{WORKFLOWS}/i/{await add_default(resources)}"
    assert (await people["ann"].get(url)).status_code == 200
    assert (await people["ann"].put(f"{url}/opened_at")).status_code == 200
    for who in ("ann", "root"):
        sent = {"workflow": {**workflow(), "id": "default_one"}}
        assert (await people[who].patch(url, json=sent)).status_code == 403
        assert (await people[who].delete(url)).status_code == 403


async def test_thumbnails_need_access_to_their_workflow(people, resources) -> None:
    """Browsers fetch them by themselves, without a token: the media cookie that they send to images serves here too (test_signing_in)."""
    from invokeclone.workflows.api import router
    from tests.applications import serving
    from tests.images.people import multiuser

    record = await make(people["ann"])
    await people["ann"].put(f"{WORKFLOWS}/i/{record['workflow_id']}/thumbnail", files=IMAGE)
    url = f"{WORKFLOWS}/i/{record['workflow_id']}"
    async with serving(multiuser(resources), router) as anybody:
        assert (await anybody.get(f"{url}/thumbnail")).status_code == 401
        assert (await anybody.get(url)).status_code == 401
    assert (await people["bob"].get(f"{url}/thumbnail")).status_code == 403
    for who in ("ann", "root"):
        answer = await people[who].get(f"{url}/thumbnail")
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "private, no-store")
    await share(people["ann"], record["workflow_id"])
    assert (await people["bob"].get(f"{url}/thumbnail")).status_code == 200


async def test_workflow_events_reach_permitted_users_only(people, events) -> None:
    from invokeclone.server.sockets import rooms_for

    ann = people["ann"]
    record = await make(ann)
    await share(ann, record["workflow_id"])
    await share(ann, record["workflow_id"], is_public=False)
    await share(ann, record["workflow_id"])
    await ann.delete(f"{WORKFLOWS}/i/{record['workflow_id']}")
    recipients = [(event.name, sorted(rooms_for(type(event), event.model_dump(mode="json")))) for event in events.sent]
    private, everybody = ["admin", "user:ann"], ["admin", "everyone", "user:ann"]
    assert recipients == [
        ("workflow_created", private),
        ("workflow_updated", everybody),
        ("workflow_updated", private),
        ("workflow_access_revoked", ["everyone"]),
        ("workflow_updated", everybody),
        ("workflow_deleted", everybody),
    ]
    assert {event.user_id for event in events.sent} == {"ann"}


@pytest.mark.parametrize("change", ["is_public", "thumbnail"])
async def test_single_user_mode_emits_no_access_revoked_events(client, events, change: str) -> None:
    record = await make(client)
    if change == "is_public":
        await share(client, record["workflow_id"], is_public=False)
        assert events.names() == ["workflow_created", "workflow_updated"]
    else:
        await client.put(f"{WORKFLOWS}/i/{record['workflow_id']}/thumbnail", files=IMAGE)
        assert events.names() == ["workflow_created"]
