"""Zip files of images: what is in them, that each is served once, and what is refused or fails."""

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator

import httpx
import pytest

from invokeclone.boards.api import router as boards_router
from invokeclone.images import files, responses
from invokeclone.images.api import router as images_router
from invokeclone.images.archives import ready_zips
from invokeclone.images.archives import service as downloads
from invokeclone.images.archives.api import router as downloads_router
from invokeclone.images.archives.service import ImageDownloads, clean_name
from invokeclone.images.schemas import ImageLocation
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.files.storage_errors import StorageUnreachable
from invokeclone.kit.resources import Resources
from invokeclone.users.current import SYSTEM
from tests import stored_files
from tests.applications import serving
from tests.images.people import asking, multiuser, register

ROUTE = "/api/v1/images/download"


@pytest.fixture
async def zips(resources: Resources) -> AsyncIterator[ImageDownloads]:
    service = ImageDownloads(resources)
    await service.start()
    yield service
    await service.stop()


@pytest.fixture
async def client(resources: Resources, zips: ImageDownloads) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(
        resources, images_router, downloads_router, boards_router, parts={ImageDownloads: zips}
    ) as served:
        yield served


def left_files(resources: Resources) -> list[str]:
    """Return the names of the files in the folders of zip files."""
    outputs = resources.settings.outputs_path
    paths = [path for folder in (downloads.FOLDER, ready_zips.ZIPS) for path in (outputs / folder).rglob("*")]
    return sorted(path.name for path in paths if path.is_file())


async def ready(zips: ImageDownloads) -> None:
    await asyncio.gather(*zips._tasks)


async def board(client: httpx.AsyncClient, name: str) -> str:
    return (await client.post("/api/v1/boards/", params={"board_name": name})).json()["board_id"]


def entries(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} <= {zipfile.ZIP_STORED}
        return {info.filename: archive.read(info) for info in archive.infolist()}


async def test_a_zip_of_named_images(client, upload, zips, events, resources) -> None:
    first = await upload()
    second = await upload(image_category="mask", is_intermediate="true")
    names = [first["image_name"], second["image_name"], first["image_name"]]
    answer = await client.post(ROUTE, json={"image_names": names})
    assert answer.status_code == 202
    name = answer.json()["bulk_download_item_name"]
    assert answer.json() == {"response": None, "bulk_download_item_name": name}
    await ready(zips)
    download_events = [event for event in events.sent if event.name.startswith("bulk_download")]
    assert [event.name for event in download_events] == ["bulk_download_started", "bulk_download_complete"]
    for event in download_events:
        assert event.model_dump(exclude={"timestamp"}) == {
            "bulk_download_id": "default",
            "bulk_download_item_id": name.removesuffix(".zip"),
            "bulk_download_item_name": name,
            "user_id": "system",
        }
    got = await client.get(f"{ROUTE}/{name}", headers={"Range": "bytes=0-3"})
    assert (got.status_code, got.headers["content-type"]) == (200, "application/zip")
    assert got.headers["content-disposition"] == f'inline; filename="{name}"'
    assert got.headers["cache-control"] == "max-age=31536000"
    expected = {
        f"{image['image_category']}/{image['image_name']}": stored_files.full_path(
            resources.settings, ImageLocation(image["image_name"], "")
        ).read_bytes()
        for image in (first, second)
    }
    assert entries(got.content) == expected


async def test_each_zip_is_served_once_and_then_removed(client, upload, zips, resources) -> None:
    image = await upload()
    name = (await client.post(ROUTE, json={"image_names": [image["image_name"]]})).json()["bulk_download_item_name"]
    await ready(zips)
    answers = await asyncio.gather(*[client.get(f"{ROUTE}/{name}") for _ in range(5)])
    assert sorted(answer.status_code for answer in answers) == [200, 404, 404, 404, 404]
    assert left_files(resources) == []


@pytest.mark.parametrize("error", [StorageUnreachable("gone"), asyncio.CancelledError()], ids=["storage", "client"])
async def test_a_download_that_failed_before_its_response_can_be_repeated(
    client, upload, zips, resources, monkeypatch, error
) -> None:
    image = await upload()
    name = (await client.post(ROUTE, json={"image_names": [image["image_name"]]})).json()["bulk_download_item_name"]
    await ready(zips)
    with pytest.raises(type(error)):
        async with zips.claim(SYSTEM, name):
            raise error
    assert left_files(resources) == [name]

    async def fail(*_arguments: object) -> None:
        raise StorageUnreachable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(responses, "file", fail)
        assert (await client.get(f"{ROUTE}/{name}")).status_code == 503
    assert (await client.get(f"{ROUTE}/{name}")).status_code == 200
    assert left_files(resources) == []


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_zip_that_cannot_be_removed_yet_changes_no_response(
    client, upload, zips, monkeypatch, caplog, is_lost
) -> None:
    image = await upload()
    name = (await client.post(ROUTE, json={"image_names": [image["image_name"]]})).json()["bulk_download_item_name"]
    await ready(zips)

    def fail(*_arguments: object) -> None:
        raise StorageUnreachable("all threads wait for the storage")

    async def find_none(*_arguments: object) -> None:
        return None

    monkeypatch.setattr(zips.ready, "remove", fail)
    if is_lost:
        monkeypatch.setattr(responses, "file", find_none)
    assert (await client.get(f"{ROUTE}/{name}")).status_code == (404 if is_lost else 200)
    assert f"could not remove the zip file {name} yet" in caplog.text


async def test_a_board_takes_precedence_over_names(client, upload, zips) -> None:
    on = await board(client, "Ünter/wegs! 2_a-b ..")
    image = await upload(board_id=on)
    await upload(board_id=on, is_intermediate="true")
    other = await upload()
    body = {"board_id": on, "image_names": [other["image_name"]]}
    name = (await client.post(ROUTE, json=body)).json()["bulk_download_item_name"]
    assert name.startswith("Ünterwegs 2_a-b_")
    await ready(zips)
    assert list(entries((await client.get(f"{ROUTE}/{name}")).content)) == [f"general/{image['image_name']}"]


async def test_zip_of_uncategorized_images(client, upload, zips) -> None:
    await upload(board_id=await board(client, "b"))
    free = await upload(image_category="user")
    name = (await client.post(ROUTE, json={"board_id": "none"})).json()["bulk_download_item_name"]
    assert name.startswith("Uncategorized_")
    await ready(zips)
    assert list(entries((await client.get(f"{ROUTE}/{name}")).content)) == [f"user/{free['image_name']}"]


@pytest.mark.parametrize("body", [{}, {"image_names": []}, {"image_names": None, "board_id": None}])
async def test_an_empty_request_is_a_400(client, body) -> None:
    assert (await client.post(ROUTE, json=body)).status_code == 400


async def test_an_unknown_board_is_a_404(client) -> None:
    """The reference answers 500."""
    assert (await client.post(ROUTE, json={"board_id": "nope"})).status_code == 404


@pytest.mark.parametrize("names", [["x"] * 1001, ["x" * 256], "x"])
async def test_invalid_name_lists_are_refused(client, names) -> None:
    assert (await client.post(ROUTE, json={"image_names": names})).status_code == 422


async def test_a_missing_image_is_an_error_event_and_no_zip(client, upload, zips, events) -> None:
    image = await upload()
    body = {"image_names": [image["image_name"], "nope.png"]}
    name = (await client.post(ROUTE, json=body)).json()["bulk_download_item_name"]
    await ready(zips)
    (error,) = [event for event in events.sent if event.name == "bulk_download_error"]
    assert "nope.png" in error.error
    assert "bulk_download_complete" not in events.names()
    assert (await client.get(f"{ROUTE}/{name}")).status_code == 404


async def test_a_missing_file_error_reveals_no_path(client, upload, zips, events, resources) -> None:
    present, lost = await upload(), await upload()
    files.remove(resources.storage, [ImageLocation(lost["image_name"], "")])
    await client.post(ROUTE, json={"image_names": [present["image_name"], lost["image_name"]]})
    await ready(zips)
    (error,) = [event for event in events.sent if event.name == "bulk_download_error"]
    assert lost["image_name"] in error.error
    assert str(resources.settings.root) not in error.error
    assert left_files(resources) == []


@pytest.mark.parametrize("name", ["nope.zip", "..%2F..%2Finvokeai.yaml", "%2Fetc%2Fpasswd"])
async def test_unknown_names_are_a_404(client, name: str) -> None:
    assert (await client.get(f"{ROUTE}/{name}")).status_code == 404


async def test_concurrent_zips_and_pending_limit(client, upload, zips, monkeypatch) -> None:
    image = await upload()
    body = {"image_names": [image["image_name"]]}
    names = [
        answer.json()["bulk_download_item_name"] for answer in [await client.post(ROUTE, json=body) for _ in range(3)]
    ]
    await ready(zips)
    assert len(set(names)) == 3
    for name in names:
        assert len(entries((await client.get(f"{ROUTE}/{name}")).content)) == 1
    monkeypatch.setattr(downloads, "MAX_PENDING", 2)
    async with zips._slots, zips._slots:
        statuses = [(await client.post(ROUTE, json=body)).status_code for _ in range(3)]
    assert statuses == [202, 202, 429]


async def test_unfetched_zips_expire(client, upload, zips, monkeypatch, resources) -> None:
    monkeypatch.setattr(ready_zips, "MAX_READY", 2)
    image = await upload()
    names = []
    for _ in range(4):
        answer = await client.post(ROUTE, json={"image_names": [image["image_name"]]})
        names.append(answer.json()["bulk_download_item_name"])
        await ready(zips)
    assert left_files(resources) == sorted(names[2:])
    monkeypatch.setattr(ready_zips, "RETENTION_S", -1)
    await client.post(ROUTE, json={"image_names": [image["image_name"]]})
    await ready(zips)
    assert (await client.get(f"{ROUTE}/{names[3]}")).status_code == 404


async def test_server_shutdown_during_a_zip_leaves_no_files(
    client, upload, zips, events, monkeypatch, resources
) -> None:
    """It stops between two pieces, tells nothing and leaves nothing."""
    image = await upload()
    monkeypatch.setattr(downloads, "PIECE", 1)
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    add = zips._add

    def slowly(*args) -> None:
        loop.call_soon_threadsafe(begun.set)
        zips._stopping.wait(30)
        add(*args)

    monkeypatch.setattr(zips, "_add", slowly)
    await client.post(ROUTE, json={"image_names": [image["image_name"]]})
    await client.post(ROUTE, json={"image_names": [image["image_name"]]})
    await begun.wait()
    await zips.stop()
    assert not (resources.settings.outputs_path / downloads.FOLDER).exists()
    assert set(events.names()) & {"bulk_download_complete", "bulk_download_error"} == set()
    assert (await client.post(ROUTE, json={"image_names": [image["image_name"]]})).status_code == 429


async def test_startup_removes_leftovers_of_a_crash(resources: Resources) -> None:
    left = resources.settings.outputs_path / downloads.FOLDER / "old.zip"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    await ImageDownloads(resources).start()
    assert not left.exists()


@pytest.mark.parametrize(
    ("name", "kept"), [("a/b!c", "abc"), ("é-_ 1", "é-_ 1"), ("../..", ""), (" x ", "x"), ("日" * 200, "日" * 33)]
)
def test_board_names_become_safe_file_names(name: str, kept: str) -> None:
    assert clean_name(name) == kept


async def test_only_readable_images_and_own_zips_are_served(resources: Resources, upload) -> None:
    """Another's image is a 403 at the request, another's zip file at the fetching; browsers keep nothing."""
    resources = multiuser(resources)
    await register(resources.database)
    zips = ImageDownloads(resources)
    async with asking(
        resources, images_router, boards_router, downloads_router, parts={ImageDownloads: zips}
    ) as people:
        ann, bob, root = people["ann"], people["bob"], people["root"]
        sent = {"params": {"image_category": "general", "is_intermediate": "false"}}
        image = await ann.post("/api/v1/images/upload", **sent, files={"file": ("x.png", _png(), "image/png")})
        name = image.json()["image_name"]
        private = await board(ann, "p")
        assert (await bob.post(ROUTE, json={"image_names": [name]})).status_code == 403
        assert (await bob.post(ROUTE, json={"board_id": private})).status_code == 403
        assert (await bob.post(ROUTE, json={"board_id": "nope"})).status_code == 404
        zip_names = [
            (await ann.post(ROUTE, json={"image_names": [name]})).json()["bulk_download_item_name"] for _ in "ab"
        ]
        nothing = (await bob.post(ROUTE, json={"board_id": "none"})).json()["bulk_download_item_name"]
        await ready(zips)
        assert (await bob.get(f"{ROUTE}/{zip_names[0]}")).status_code == 403
        got = await ann.get(f"{ROUTE}/{zip_names[0]}")
        assert (got.status_code, got.headers["cache-control"]) == (200, "private, no-store")
        assert (await root.get(f"{ROUTE}/{zip_names[1]}")).status_code == 200
        assert entries((await bob.get(f"{ROUTE}/{nothing}")).content) == {}
    await zips.stop()


def _png() -> bytes:
    from tests.applications import encode_image, sample_image

    return encode_image(sample_image())


async def test_a_board_zip_lists_missing_files(client, upload, zips, events, resources) -> None:
    board_id = await board(client, "B")
    present, lost = await upload(board_id=board_id), await upload(board_id=board_id)
    files.remove(resources.storage, [ImageLocation(lost["image_name"], "")])
    name = (await client.post(ROUTE, json={"board_id": board_id})).json()["bulk_download_item_name"]
    await ready(zips)
    contents = entries((await client.get(f"{ROUTE}/{name}")).content)
    assert [entry.rpartition("/")[2] for entry in contents] == [present["image_name"], downloads.MISSING]
    assert lost["image_name"] in contents[downloads.MISSING].decode()
    assert "bulk_download_complete" in events.names()


async def test_a_board_with_only_missing_files_is_an_error(client, upload, zips, events, resources) -> None:
    board_id = await board(client, "B")
    lost = await upload(board_id=board_id)
    files.remove(resources.storage, [ImageLocation(lost["image_name"], "")])
    await client.post(ROUTE, json={"board_id": board_id})
    await ready(zips)
    assert events.names()[-1] == "bulk_download_error"


async def test_images_per_board_zip_are_limited(client, upload, resources) -> None:
    board_id = await board(client, "B")
    await upload(board_id=board_id), await upload(board_id=board_id)
    resources.settings = resources.settings.model_copy(update={"limits": Limits(download_images=1)})
    answer = await client.post(ROUTE, json={"board_id": board_id})
    assert (answer.status_code, "limits.download_images" in answer.text) == (422, True)
