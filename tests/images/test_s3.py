"""Images and videos in a bucket through the routes: the same responses as with local files, and nothing half-written."""

import asyncio
import io
import threading
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import obstore
import pytest
from sqlalchemy import insert

from invokeclone.boards.api import router as boards_router
from invokeclone.cli.storage import RECORD_IMAGES
from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import files, intent_log, orphans, responses, service
from invokeclone.images.api import router as images_router
from invokeclone.images.archives.api import router as downloads_router
from invokeclone.images.archives.ready_zips import ReadyZips
from invokeclone.images.archives.service import ImageDownloads
from invokeclone.images.errors import DownloadNotFound
from invokeclone.images.media_kinds import IMAGES
from invokeclone.images.relocation.service import ImageMoves
from invokeclone.images.schemas import ImageLocation
from invokeclone.images.videos.api import router as videos_router
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database
from invokeclone.presets.api import router as presets_router
from invokeclone.tables import workflows
from invokeclone.users.current import SYSTEM
from tests.applications import decode_image, encode_image, sample_image, serving
from tests.faults import image_names
from tests.images.people import asking, multiuser, register
from tests.images.videos.conftest import encode_video
from tests.s3_server import S3Service

PREFIX = "some/root/"


@pytest.fixture
def resources(s3_settings: Settings, database: Database, events: Any) -> Resources:
    return Resources(s3_settings, database, events)


@pytest.fixture
async def zips(resources: Resources) -> AsyncIterator[ImageDownloads]:
    archives = ImageDownloads(resources)
    yield archives
    await archives.stop()


@pytest.fixture
async def client(resources: Resources, zips: ImageDownloads) -> AsyncIterator[httpx.AsyncClient]:
    routers = (images_router, videos_router, boards_router, downloads_router, presets_router)
    async with serving(resources, *routers, parts={ImageDownloads: zips}) as served:
        yield served


@pytest.fixture
def stored(s3: S3Service, bucket: str) -> Callable[[], set[str]]:
    """Return the keys in the bucket, without the prefix."""
    return lambda: {key.removeprefix(PREFIX) for key in s3.keys(bucket)}


@pytest.fixture(autouse=True)
def nothing_is_local(settings: Settings) -> Iterator[None]:
    yield
    local = [path for path in settings.outputs_path.rglob("*") if path.is_file()]
    assert local == []
    assert list((settings.database_path.parent / "intents").glob("*")) == []


def keys_of(name: str, subfolder: str = "") -> set[str]:
    return set(files.keys(ImageLocation(name, subfolder)))


async def save(resources: Resources, **texts: str) -> str:
    image = await service.save(
        resources, sample_image(), category=ImageCategory.GENERAL, origin=ResourceOrigin.INTERNAL, **texts
    )
    return image.image_name


async def test_an_image_from_upload_to_deletion(client: httpx.AsyncClient, upload, stored) -> None:
    image = await upload()
    name, url = image["image_name"], f"/{image['image_url']}"
    assert stored() == keys_of(name)
    listed = (await client.get("/api/v1/images/")).json()
    assert [item["image_name"] for item in listed["items"]] == [name]
    full = await client.get(url)
    assert (full.status_code, full.headers["content-type"]) == (200, "image/png")
    assert decode_image(full.content).tobytes() == sample_image().tobytes()
    head = await client.head(url)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(full.content)), b"")
    same = await client.get(url, headers={"If-None-Match": full.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    small = await client.get(f"/{image['thumbnail_url']}")
    assert (small.headers["content-type"], decode_image(small.content).size) == ("image/webp", (48, 32))
    assert (await client.delete(f"/api/v1/images/i/{name}")).status_code == 200
    assert (await client.get(url)).status_code == 404
    assert stored() == set()


async def test_embedded_texts(client: httpx.AsyncClient, resources: Resources) -> None:
    name = await save(resources, workflow='{"a": 1}', graph="{}")
    texts = (await client.get(f"/api/v1/images/i/{name}/workflow")).json()
    assert texts == {"workflow": '{"a": 1}', "graph": "{}"}


async def test_lost_files(client: httpx.AsyncClient, upload, resources: Resources, stored) -> None:
    image = await upload()
    location = ImageLocation(image["image_name"], "")
    resources.storage.delete([files.thumbnail_key(location)])
    assert (await client.get(f"/{image['thumbnail_url']}")).status_code == 200
    assert stored() == keys_of(location.name)
    files.remove(resources.storage, [location])
    for part in ("full", "thumbnail", "workflow"):
        assert (await client.get(f"/api/v1/images/i/{location.name}/{part}")).status_code == 404
    assert (await client.head(f"/{image['image_url']}")).status_code == 404


async def test_large_files_are_sent_in_parts(
    client: httpx.AsyncClient, upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"/{(await upload())['image_url']}"
    whole = await client.get(url)
    monkeypatch.setattr(responses, "MAX_BUFFERED_SIZE", 100)
    parts = await client.get(url)
    assert (parts.content, parts.headers["content-length"]) == (whole.content, str(len(whole.content)))
    head = await client.head(url)
    assert (head.headers["content-length"], head.content) == (parts.headers["content-length"], b"")


async def test_a_zip_file(client: httpx.AsyncClient, upload, zips: ImageDownloads) -> None:
    images = [await upload() for _ in range(2)]
    answer = await client.post("/api/v1/images/download", json={"image_names": [i["image_name"] for i in images]})
    await asyncio.gather(*zips._tasks)
    file = await client.get(f"/api/v1/images/download/{answer.json()['bulk_download_item_name']}")
    with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
        assert archive.testzip() is None
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
        assert {info.date_time[0] >= 2020 for info in archive.infolist()} == {True}
    for image in images:
        assert contents[f"general/{image['image_name']}"] == (await client.get(f"/{image['image_url']}")).content


async def test_ready_zip_files(resources: Resources, stored, tmp_path: Path) -> None:
    """As several servers have them: names of boards are in any language, and one of two downloads is refused."""
    zips = ReadyZips(resources.storage)
    name = "Ünter wegs 日_1-a.zip"
    for user_id in ("system", "other"):
        path = tmp_path / f"{user_id[0]}{name}"
        path.write_bytes(b"content")
        await asyncio.to_thread(zips.add, user_id, path)
    file = await asyncio.to_thread(zips.claim, SYSTEM, f"s{name}")
    assert (file.read(), file.name) == (b"content", f"s{name}")
    with pytest.raises(DownloadNotFound):
        zips.claim(SYSTEM, f"s{name}")
    zips.remove(file)
    assert len(stored()) == 1
    zips.evict_old(0)
    assert stored() == set()


async def test_moves_between_subfolders(resources: Resources, stored) -> None:
    names = [await save(resources) for _ in range(3)]
    await asyncio.to_thread(resources.storage.delete, [files.thumbnail_key(ImageLocation(names[0], ""))])
    resources.settings = resources.settings.model_copy(update={"image_subfolder_strategy": "hash"})
    moves = ImageMoves(resources)
    await moves.move_all()
    assert moves._task is not None
    await moves._task
    status = await moves.status()
    assert (status.last_error, status.needs_move_count) == (None, 0)
    expected = set().union(*(keys_of(name, name[:2]) for name in names))
    assert stored() == expected - {files.thumbnail_key(ImageLocation(names[0], names[0][:2]))}


async def test_a_video_and_its_ranges(client: httpx.AsyncClient, resources: Resources, stored) -> None:
    mp4 = encode_video()
    answer = await client.post(
        "/api/v1/videos/upload",
        params={"video_category": "general", "is_intermediate": "false"},
        files={"file": ("v.mp4", mp4, "video/mp4")},
        data={"metadata": '{"a": 1}'},
    )
    assert answer.status_code == 201, answer.text
    video = answer.json()
    name, url = video["video_name"], f"/{video['video_url']}"
    stem = name.removesuffix(".mp4")
    assert stored() == {f"videos/{name}", f"videos/thumbnails/{stem}.webp", f"videos/sidecars/{stem}.json"}
    assert (await client.get(url)).content == mp4
    for asked, expected in (("0-9", mp4[:10]), ("-7", mp4[-7:]), ("1800-", mp4[1800:]), ("5-99999999999", mp4[5:])):
        part = await client.get(url, headers={"Range": f"bytes={asked}"})
        assert (part.status_code, part.content) == (206, expected)
        assert part.headers["content-range"].endswith(f"/{len(mp4)}")
    for asked in ("99999-", "-0", "5-2", "x", "9" * 19 + "-"):
        refused = await client.get(url, headers={"Range": f"bytes={asked}"})
        assert (refused.status_code, refused.headers["content-range"]) == (416, f"bytes */{len(mp4)}")
    await asyncio.to_thread(resources.storage.delete, [f"videos/thumbnails/{stem}.webp"])
    assert (await client.get(f"/{video['thumbnail_url']}")).status_code == 200
    assert f"videos/thumbnails/{stem}.webp" in stored()
    assert (await client.get(f"/api/v1/videos/i/{name}/workflow")).json() == {"workflow": None, "graph": None}
    assert (await client.delete(f"/api/v1/videos/i/{name}")).status_code == 200
    assert stored() == set()
    assert (await client.get(url, headers={"Range": "bytes=0-9"})).status_code == 404


async def test_the_image_of_a_preset(client: httpx.AsyncClient, stored) -> None:
    data = {"data": '{"name": "p", "positive_prompt": "", "negative_prompt": "", "type": "user"}'}
    image = {"image": ("a.png", encode_image(sample_image()), "image/png")}
    preset = (await client.post("/api/v1/style_presets/", data=data, files=image)).json()
    assert stored() == {f"style_presets/{preset['id']}.webp"}
    shown = await client.get(f"/{preset['image']}")
    assert (shown.status_code, decode_image(shown.content).size) == (200, (48, 32))
    await client.delete(f"/api/v1/style_presets/i/{preset['id']}")
    assert stored() == set()


async def test_objects_without_a_record_are_found(client: httpx.AsyncClient, resources: Resources, stored) -> None:
    data = {"data": '{"name": "p", "positive_prompt": "", "negative_prompt": "", "type": "user"}'}
    image = {"image": ("a.png", encode_image(sample_image()), "image/png")}
    await client.post("/api/v1/style_presets/", data=data, files=image)
    plain = (await client.post("/api/v1/style_presets/", data=data)).json()
    row = {
        "name": "n",
        "description": "",
        "tags": "",
        "category": "user",
        "workflow": "{}",
        "judged_by": "",
        "created_at": "x",
        "updated_at": "x",
    }
    async with resources.database.write() as connection:
        await connection.execute(insert(workflows).values(**row, workflow_id="w", call_message="", thumbnail="1"))
    await save(resources)
    resources.storage.write("workflow_thumbnails/w.webp", b"x")
    kept = stored()
    lost = {f"style_presets/{plain['id']}.webp", "workflow_thumbnails/x.webp", "images/x.png", ".probe/01"}
    for key in lost:
        resources.storage.write(key, b"x")
    found = [key async for keys in orphans.find(resources, RECORD_IMAGES, timedelta(0)) for key in keys]
    assert (sorted(found), stored()) == (sorted(lost), kept | lost)


# Presigned URLs


async def test_presigned_reads(client: httpx.AsyncClient, upload, resources: Resources, s3: S3Service) -> None:
    image = await upload()
    url, content = f"/{image['image_url']}", (await client.get(f"/{image['image_url']}")).content
    resources.settings = resources.settings.model_copy(update={"storage_reads": "presigned"})
    redirect = await client.get(url)
    assert (redirect.status_code, redirect.headers["cache-control"]) == (307, "private, max-age=150")
    assert redirect.headers["location"].startswith(s3.endpoint)
    async with httpx.AsyncClient() as browser:
        read = await browser.get(redirect.headers["location"])
        assert (read.content, read.headers["content-type"]) == (content, "image/png")
        unsigned = redirect.headers["location"].partition("?")[0]
        assert unsigned.endswith(f"/{image['image_name']}")
    assert (await client.head(url)).headers["content-length"] == str(len(content))
    assert (await client.get(url, headers={"If-None-Match": f'"{image["image_name"]}"'})).status_code == 304
    assert (await client.get(f"/{image['thumbnail_url']}")).status_code == 200


async def test_urls_are_presigned_only_for_those_who_may_see_the_image(
    resources: Resources, s3_settings: Settings, database: Database
) -> None:
    await register(database)
    shared = multiuser(resources)
    shared.settings = shared.settings.model_copy(
        update={"storage_reads": "presigned", "storage_public_endpoint": "https://media.example"}
    )
    async with asking(shared, images_router) as clients:
        answer = await clients["ann"].post(
            "/api/v1/images/upload",
            params={"image_category": "general", "is_intermediate": "false"},
            files={"file": ("x.png", encode_image(sample_image()), "image/png")},
        )
        url = f"/{answer.json()['image_url']}"
        own, foreign = await clients["ann"].get(url), await clients["bob"].get(url)
    assert (own.status_code, own.headers["cache-control"]) == (307, "private, no-store")
    assert own.headers["location"].startswith("https://media.example/")
    assert foreign.status_code == 403
    assert "location" not in foreign.headers


# Outages and crashes

CALLS = ("put", "get", "head", "delete", "copy")


class Outages:
    """Lets the n-th request of the storage fail, or all from it on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = self.failing = 0
        self.forever = False
        self._lock = threading.Lock()
        for name in CALLS:
            monkeypatch.setattr(obstore, name, self._failing(getattr(obstore, name)))

    def _failing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                self.count += 1
                fails = self.count == self.failing or (self.forever and 0 < self.failing < self.count)
            if fails:
                raise obstore.exceptions.GenericError("HTTP error: error sending request")
            return original(*arguments, **options)

        return call

    def arm(self, failing: int, *, forever: bool = False) -> None:
        self.count, self.failing, self.forever = 0, failing, forever


async def check_whole(resources: Resources, stored: Callable[[], set[str]]) -> None:
    """Assert that each record has its objects, and each object its record."""
    names = await image_names(resources)
    assert stored() == set().union(*(keys_of(name) for name in names))


@pytest.mark.parametrize("forever", [False, True], ids=["once", "from then on"])
async def test_each_request_of_uploads_and_deletions_may_fail(
    client: httpx.AsyncClient, resources: Resources, stored, monkeypatch: pytest.MonkeyPatch, *, forever: bool
) -> None:
    outages = Outages(monkeypatch)
    statuses = set()
    for failing in range(1, 5):
        outages.arm(failing, forever=forever)
        answer = await client.post(
            "/api/v1/images/upload",
            params={"image_category": "general", "is_intermediate": "false"},
            files={"file": ("x.png", encode_image(sample_image()), "image/png")},
        )
        statuses.add(answer.status_code)
        assert answer.status_code == 201 or "cannot reach its storage" in answer.json()["detail"]
        if answer.status_code == 201:
            deleted = await client.delete(f"/api/v1/images/i/{answer.json()['image_name']}")
            assert deleted.status_code == 200  # the record is gone, and its files will be
        outages.arm(0)
        await intent_log.settle_all(resources, alone=True)
        await check_whole(resources, stored)
    assert statuses == {201, 503}


async def test_reads_during_an_outage_are_no_lost_images(
    client: httpx.AsyncClient, upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = await upload()
    outages = Outages(monkeypatch)
    outages.arm(1, forever=True)
    for part in ("full", "thumbnail", "workflow"):
        answer = await client.get(f"/api/v1/images/i/{image['image_name']}/{part}")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")


async def test_objects_of_a_dead_process_are_removed(resources: Resources, stored) -> None:
    kept, lost = await save(resources), ImageLocation("left.png", "2026/01")
    intent = intent_log.Intent(resources.settings)
    intent.write(IMAGES, [lost, ImageLocation(kept, "")])
    files.write(resources.storage, lost, b"png", b"webp")
    intent.close(remove=False)
    assert stored() == keys_of(kept) | keys_of("left.png", "2026/01")
    await intent_log.settle_all(resources)
    assert stored() == keys_of(kept)


async def test_only_the_first_intent_waits_for_a_service_that_is_away(
    resources: Resources, stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    locations = [ImageLocation(f"left{number}.png", "") for number in range(3)]
    for location in locations:
        intent = intent_log.Intent(resources.settings)
        intent.write(IMAGES, [location])
        files.write(resources.storage, location, b"png", b"webp")
        intent.close(remove=False)
    outages = Outages(monkeypatch)
    outages.arm(1, forever=True)
    await intent_log.settle_all(resources)
    assert outages.count == 1
    outages.arm(0)
    await intent_log.settle_all(resources)
    assert stored() == set()


async def test_deletions_during_an_outage_are_made_up_for(
    resources: Resources, stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await save(resources)
    outages = Outages(monkeypatch)
    outages.arm(1, forever=True)
    await service.delete(resources, name)
    assert stored() == keys_of(name)
    settling = intent_log.regular_settling(resources, 0.01)
    settling.start()
    async with asyncio.timeout(30):
        while outages.count < 2:  # in vain
            await asyncio.sleep(0.01)
        assert stored() == keys_of(name)
        outages.arm(0)
        while list(intent_log.folder(resources.settings).glob("*")):
            await asyncio.sleep(0.01)
    await settling.stop()
    assert stored() == set()


async def test_a_video_is_not_held_in_memory(resources: Resources, tmp_path: Path) -> None:
    """The upload of a large file reads it piece by piece."""
    part = tmp_path / "x.part"
    with part.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    reads: list[int] = []

    def put(_store: object, _key: str, data: Any, **options: Any) -> None:
        assert options["chunk_size"] * options["max_concurrency"] <= 32 * 1024 * 1024
        reads.append(len(data.read(options["chunk_size"])))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(obstore, "put", put)
        resources.storage.write_file("videos/v.mp4", part)
    assert reads == [8 * 1024 * 1024]
    assert not part.exists()
