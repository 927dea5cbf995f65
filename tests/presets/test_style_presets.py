"""Style presets: making, changing, pictures, files, rights, and those that come with the application."""

import asyncio
import json
import re
import uuid

import httpx
import pytest

from invokeclone.kit.config.limits import Limits
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.transactions import CommitUnknown
from invokeclone.presets import service, store
from invokeclone.presets.schemas import PLACEHOLDER
from invokeclone.users.current import User
from tests.applications import decode_image, encode_image, sample_image
from tests.busy_storage import busy_storage
from tests.lost_commits import losing_commit

PRESETS = "/api/v1/style_presets"
IMAGE = {"image": ("a.png", encode_image(sample_image(size=(600, 300))), "image/png")}


def form(name: str = "Pa", **fields: object) -> dict[str, str]:
    return {
        "data": json.dumps(
            {"name": name, "positive_prompt": "{prompt} x", "negative_prompt": "neg", "type": "user", **fields}
        )
    }


async def make(client: httpx.AsyncClient, name: str = "Pa", **fields: object) -> dict:
    answer = await client.post(f"{PRESETS}/", data=form(name, **fields))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_new_preset_in_full(client) -> None:
    preset = await make(client)
    assert preset == {
        "id": str(uuid.UUID(preset["id"])),
        "name": "Pa",
        "preset_data": {"positive_prompt": "{prompt} x", "negative_prompt": "neg"},
        "type": "user",
        "is_public": False,
        "user_id": "system",
        "image": None,
    }
    assert (await client.get(f"{PRESETS}/i/{preset['id']}")).json() == preset
    assert preset in (await client.get(f"{PRESETS}/")).json()
    assert (await make(client, "shared", is_public=True))["is_public"] is True
    assert (await make(client, "project's", type="project"))["type"] == "project"


@pytest.mark.parametrize(
    "data",
    [
        "not json",
        "[]",
        "{}",
        '{"name":"","positive_prompt":"","negative_prompt":"","type":"user"}',
        '{"name":"a","positive_prompt":"","negative_prompt":"","type":"nobody"}',
        '{"name":"a","positive_prompt":"","type":"user"}',
        '{"name":"a","positive_prompt":"","negative_prompt":"","type":"default"}',
    ],
)
async def test_bad_data_is_400(client, data: str) -> None:
    before = (await client.get(f"{PRESETS}/")).json()
    assert (await client.post(f"{PRESETS}/", data={"data": data}, files=IMAGE)).status_code == 400
    preset = await make(client)
    assert (await client.patch(f"{PRESETS}/i/{preset['id']}", data={"data": data})).status_code == 400
    assert len((await client.get(f"{PRESETS}/")).json()) == len(before) + 1


async def test_no_data_is_422(client) -> None:
    assert (await client.post(f"{PRESETS}/")).status_code == 422


async def test_missing_presets_and_images_are_404(client) -> None:
    """The reference answers 500 to deleting an unknown one in 6.8.1, and to asking for a picture that is not there."""
    for way in (client.get, client.delete):
        assert (await way(f"{PRESETS}/i/nope")).status_code == 404
    assert (await client.patch(f"{PRESETS}/i/nope", data=form())).status_code == 404
    assert (await client.get(f"{PRESETS}/i/nope/image")).status_code == 404
    preset = await make(client)
    assert (await client.get(f"{PRESETS}/i/{preset['id']}/image")).status_code == 404


async def test_preset_image_is_served_replaced_and_removed(client, settings) -> None:
    preset = (await client.post(f"{PRESETS}/", data=form(), files=IMAGE)).json()
    assert re.fullmatch(rf"api/v1/style_presets/i/{preset['id']}/image\?\w+", preset["image"])
    answer = await client.get(f"/{preset['image']}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "max-age=31536000"
    assert answer.headers["content-disposition"] == f'inline; filename="{preset["id"]}.png"'
    assert decode_image(answer.content).size == (256, 128)
    file = settings.style_presets_path / f"{preset['id']}.webp"
    assert file.read_bytes() == answer.content
    other = await client.patch(f"{PRESETS}/i/{preset['id']}", data=form(), files=IMAGE)
    assert other.json()["image"] != preset["image"]
    assert (await client.patch(f"{PRESETS}/i/{preset['id']}", data=form("Pb"))).json() == {
        **preset,
        "name": "Pb",
        "image": None,
    }
    assert not file.exists()
    assert (await client.get(f"{PRESETS}/i/{preset['id']}/image")).status_code == 404


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"text", "text/plain"), (b"text", "image/png"), (encode_image(sample_image()), "application/octet-stream")],
)
async def test_invalid_images_are_415_and_change_nothing(client, data: bytes, kind: str) -> None:
    file = {"image": ("a.png", data, kind)}
    before = (await client.get(f"{PRESETS}/")).json()
    assert (await client.post(f"{PRESETS}/", data=form(), files=file)).status_code == 415
    assert (await client.get(f"{PRESETS}/")).json() == before
    preset = (await client.post(f"{PRESETS}/", data=form(), files=IMAGE)).json()
    assert (await client.patch(f"{PRESETS}/i/{preset['id']}", data=form("z"), files=file)).status_code == 415
    assert (await client.get(f"{PRESETS}/i/{preset['id']}")).json() == preset


async def test_deleting_a_preset_deletes_its_image(client, settings) -> None:
    preset = (await client.post(f"{PRESETS}/", data=form(), files=IMAGE)).json()
    answer = await client.delete(f"{PRESETS}/i/{preset['id']}")
    assert (answer.status_code, answer.json()) == (200, None)
    assert list(settings.style_presets_path.iterdir()) == []
    assert (await client.get(f"{PRESETS}/i/{preset['id']}")).status_code == 404


async def test_a_preset_is_deleted_although_the_storage_is_busy(client, settings) -> None:
    preset = (await client.post(f"{PRESETS}/", data=form(), files=IMAGE)).json()
    with busy_storage():
        assert (await client.delete(f"{PRESETS}/i/{preset['id']}")).status_code == 200
    assert (await client.get(f"{PRESETS}/i/{preset['id']}")).status_code == 404


async def test_list_is_sorted_by_name_ignoring_case(client) -> None:
    for name in ("zz b", "AA", "zz A", "aa b"):
        await make(client, name)
    names = [preset["name"] for preset in (await client.get(f"{PRESETS}/")).json()]
    assert names == sorted(names, key=str.lower)
    assert {"AA", "aa b", "zz A", "zz b"} < set(names)


async def test_export(client) -> None:
    await make(client, 'b, "c"\nd', positive_prompt="{prompt} é")
    await make(client, "A")
    answer = await client.get(f"{PRESETS}/export")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == "attachment; filename=prompt_templates.csv"
    assert answer.content.decode() == (
        'name,prompt,negative_prompt\r\nA,{prompt} x,neg\r\n"b, ""c""\nd",{prompt} é,neg\r\n'
    )


def summaries(presets: list[dict]) -> list[tuple[str, str, str, str]]:
    return [
        (
            preset["name"],
            preset["preset_data"]["positive_prompt"],
            preset["preset_data"]["negative_prompt"],
            preset["user_id"],
        )
        for preset in presets
        if preset["type"] == "user"
    ]


async def test_exported_presets_can_be_imported(client) -> None:
    await make(client, 'b, "c"\nd', positive_prompt="{prompt} é")
    exported = (await client.get(f"{PRESETS}/export")).content
    answer = await client.post(f"{PRESETS}/import", files={"file": ("p.csv", exported, "text/csv")})
    assert (answer.status_code, answer.json()) == (200, None)
    assert summaries((await client.get(f"{PRESETS}/")).json()) == [('b, "c"\nd', "{prompt} é", "neg", "system")] * 2


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\xef\xbb\xbfname,prompt,negative_prompt\n  n  , p ,q\n\n", "text/csv"),
        (b"negative_prompt,positive_prompt,name\nq,p,n", "text/csv"),
        (b'[{"name":" n ","prompt":"p","negative_prompt":"q"}]', "application/json"),
        (b'[{"name":"n","positive_prompt":"p","negative_prompt":"q"}]', "application/json"),
    ],
)
async def test_files_that_can_be_imported(client, data: bytes, kind: str) -> None:
    assert (await client.post(f"{PRESETS}/import", files={"file": ("p", data, kind)})).status_code == 200
    assert summaries((await client.get(f"{PRESETS}/")).json()) == [("n", "p", "q", "system")]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "text/csv"),
        (b"\xff\xfe", "text/csv"),
        (b"name,prompt,negative_prompt,more\na,b,c,d", "text/csv"),
        (b"name,prompt,negative_prompt\na,b", "text/csv"),
        (b"name,prompt,negative_prompt\na,b,c\n  ,b,c", "text/csv"),
        (b"name,name,prompt\na,b,c", "text/csv"),
        (b'name,prompt\n"a,b', "text/csv"),
        (b"{}", "application/json"),
        (b"not json", "application/json"),
        (b'[{"name":"n","prompt":"p","negative_prompt":"q"},{"name":"n","prompt":1}]', "application/json"),
        (b'[{"name":"n","prompt":"p","negative_prompt":"q","more":"r"}]', "application/json"),
        (b'[{"prompt":"p","negative_prompt":"q"}]', "application/json"),
    ],
)
async def test_invalid_import_files_are_400_and_add_no_presets(client, data: bytes, kind) -> None:
    assert (await client.post(f"{PRESETS}/import", files={"file": ("p", data, kind)})).status_code == 400
    assert summaries((await client.get(f"{PRESETS}/")).json()) == []


@pytest.mark.parametrize("kind", ["text/plain", "text/csv; charset=utf-8", "application/vnd.ms-excel"])
async def test_import_files_of_another_type_are_415(client, kind: str) -> None:
    file = {"file": ("p.csv", b"name,prompt,negative_prompt\na,b,c", kind)}
    assert (await client.post(f"{PRESETS}/import", files=file)).status_code == 415


async def test_eighteen_default_presets_contain_one_prompt_placeholder_each(client) -> None:
    listed = (await client.get(f"{PRESETS}/")).json()
    assert len(listed) == len({preset["name"] for preset in listed}) == 18
    for preset in listed:
        assert preset["type"] == "default"
        assert preset["preset_data"]["positive_prompt"].count(PLACEHOLDER) == 1
        assert preset["preset_data"]["negative_prompt"]


async def test_startup_restores_default_presets_with_their_ids(client, begun) -> None:
    """The reference gives them new ids at every start, so that what a client remembers of them is lost."""
    before = (await client.get(f"{PRESETS}/")).json()
    first, second = before[0], before[1]
    await client.delete(f"{PRESETS}/i/{first['id']}")
    assert (await client.patch(f"{PRESETS}/i/{second['id']}", data=form("c", type="default"))).status_code == 200
    user_preset = await make(client)
    async with begun.database.write() as connection:
        await store.replace_default(connection, "of an older version", ("o", "p", "q"), "system")
    await service.start(begun)
    after = (await client.get(f"{PRESETS}/")).json()
    assert [preset for preset in after if preset["type"] == "default"] == before
    assert user_preset in after


async def test_presets_cannot_change_to_or_from_the_default_type(client) -> None:
    default = (await client.get(f"{PRESETS}/")).json()[0]
    assert (await client.patch(f"{PRESETS}/i/{default['id']}", data=form(type="user"))).status_code == 400
    user_preset = await make(client)
    assert (await client.patch(f"{PRESETS}/i/{user_preset['id']}", data=form(type="default"))).status_code == 400


async def test_other_users_read_public_presets_and_change_none(people) -> None:
    ann, bob, admin = people["ann"], people["bob"], people["root"]
    private, public = await make(ann, "private"), await make(ann, "public", is_public=True)
    listed = {name: [preset["id"] for preset in (await people[name].get(f"{PRESETS}/")).json()] for name in people}
    assert {private["id"], public["id"]} < set(listed["ann"])
    assert public["id"] in listed["bob"]
    assert private["id"] not in listed["bob"]
    assert private["id"] in listed["root"]
    assert len(listed["bob"]) == 19
    assert (await bob.get(f"{PRESETS}/i/{public['id']}")).status_code == 200
    assert (await bob.get(f"{PRESETS}/i/{private['id']}")).status_code == 403
    assert (await bob.get(f"{PRESETS}/i/{private['id']}/image")).status_code == 403
    for preset in (private, public):
        assert (await bob.patch(f"{PRESETS}/i/{preset['id']}", data=form(), files=IMAGE)).status_code == 403
        assert (await bob.delete(f"{PRESETS}/i/{preset['id']}")).status_code == 403
        assert (await ann.get(f"{PRESETS}/i/{preset['id']}")).json() == preset
    assert (await admin.patch(f"{PRESETS}/i/{private['id']}", data=form("of root"))).json()["user_id"] == "ann"
    assert (await ann.delete(f"{PRESETS}/i/{public['id']}")).status_code == 200


async def test_only_admins_change_default_presets_and_import_or_export(people) -> None:
    ann, admin = people["ann"], people["root"]
    default = (await ann.get(f"{PRESETS}/")).json()[0]
    assert (await ann.get(f"{PRESETS}/i/{default['id']}")).status_code == 200
    assert (await ann.patch(f"{PRESETS}/i/{default['id']}", data=form(type="default"))).status_code == 403
    assert (await ann.delete(f"{PRESETS}/i/{default['id']}")).status_code == 403
    assert (await ann.get(f"{PRESETS}/export")).status_code == 403
    file = {"file": ("p.csv", b"name,prompt,negative_prompt\na,b,c", "text/csv")}
    assert (await ann.post(f"{PRESETS}/import", files=file)).status_code == 403
    assert (await admin.post(f"{PRESETS}/import", files=file)).status_code == 200
    assert "a,b,c" in (await admin.get(f"{PRESETS}/export")).text


@pytest.mark.parametrize("kind", ["application/json", "text/csv"])
async def test_imported_rows_and_presets_of_a_user_have_limits(client, resources, kind: str) -> None:
    def file(rows: int) -> dict[str, tuple[str, bytes, str]]:
        row = {"name": "n", "prompt": "p", "negative_prompt": "q"}
        text = (
            json.dumps([row] * rows)
            if kind == "application/json"
            else "name,prompt,negative_prompt\n" + "n,p,q\n" * rows
        )
        return {"file": ("p", text.encode(), kind)}

    resources.settings = resources.settings.model_copy(update={"limits": Limits(import_rows=3, presets=4)})
    for rows, status in ((4, 422), (3, 200), (3, 409), (1, 200), (1, 409)):
        assert (await client.post(f"{PRESETS}/import", files=file(rows))).status_code == status, rows
    assert [preset["type"] for preset in (await client.get(f"{PRESETS}/")).json()].count("user") == 4


async def test_a_refused_preset_leaves_no_image(client: httpx.AsyncClient, resources: Resources) -> None:
    resources.settings = resources.settings.model_copy(update={"limits": Limits(presets=1)})
    answers = [await client.post(f"{PRESETS}/", data=form(), files=IMAGE) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 409]
    stored = await asyncio.to_thread(lambda: [stat.key for stat in resources.storage.list("style_presets")])
    assert stored == [f"style_presets/{answers[0].json()['id']}.webp"]


@pytest.mark.parametrize("error", [None, asyncio.CancelledError()], ids=["lost", "canceled"])
@pytest.mark.parametrize(("stored", "reachable"), [(True, True), (False, True), (True, False)])
async def test_the_image_of_a_preset_stays_unless_it_is_known_that_the_preset_is_not_stored(
    resources: Resources, error: BaseException | None, *, stored: bool, reachable: bool
) -> None:
    upload = (IMAGE["image"][1], IMAGE["image"][2])
    losing = losing_commit(resources.database, store, "create", stored=stored, reachable=reachable, error=error)
    with losing, pytest.raises(type(error) if error else CommitUnknown):
        await service.create(resources, form()["data"], upload, User(user_id="ann"))
    async with resources.database.read() as connection:
        ids = [preset.id for preset in await store.list_presets(connection, None)]
    keys = await asyncio.to_thread(lambda: [stat.key for stat in resources.storage.list("style_presets")])
    assert len(ids) == stored
    assert keys == [f"style_presets/{preset_id}.webp" for preset_id in ids]
