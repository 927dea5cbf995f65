"""An S3 service that does not answer: other work goes on, and the requests that need it end in bounded time."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from anyio.to_thread import current_default_thread_limiter

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import image_work, intent_log, orphans, service, thumbnails
from invokeclone.images.api import router as images_router
from invokeclone.images.archives.api import router as downloads_router
from invokeclone.images.archives.service import ImageDownloads
from invokeclone.images.media_kinds import IMAGES
from invokeclone.images.schemas import ImageLocation
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files.storage_errors import StorageUnreachable
from invokeclone.kit.process.offload import in_thread, off_loop
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database
from invokeclone.kit.storage import threads
from invokeclone.kit.storage.addresses import open_storage
from invokeclone.presets.api import router as presets_router
from invokeclone.shims import image_io
from invokeclone.utilities.api import router as utilities_router
from tests import faulty_s3
from tests.applications import encode_image, sample_image, serving
from tests.faulty_s3 import Answer, FaultyService
from tests.s3_server import S3Service

UPLOAD = {"image_category": "general", "is_intermediate": "false"}


@pytest.fixture
def faulty(s3: S3Service) -> Iterator[FaultyService]:
    with faulty_s3.serve(s3.endpoint) as served:
        yield served


@pytest.fixture
def resources(s3_settings: Settings, faulty: FaultyService, database: Database, events: Any) -> Resources:
    made = Resources(s3_settings, database, events)
    made.storage = open_storage(s3_settings.model_copy(update={"storage_endpoint": faulty.endpoint}))
    return made


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    zips = ImageDownloads(resources)
    routers = (images_router, downloads_router, presets_router, utilities_router)
    async with serving(resources, *routers, parts={ImageDownloads: zips}) as served:
        yield served
    await zips.stop()


class Outage:
    """The service holds back its answers from `begin` until `end`."""

    def __init__(self, service: FaultyService) -> None:
        self.service = service
        self._waiting = 0
        self._lock, self._over = threading.Lock(), threading.Event()

    def begin(self) -> None:
        def hold(_answer: Answer) -> None:
            with self._lock:
                self._waiting += 1
            assert self._over.wait(60)

        self.service.times, self.service.affects, self.service.fault = 10**9, lambda _method, _path: True, hold

    def end(self) -> None:
        self.service.fault = None
        self._over.set()

    async def waiting(self, number: int) -> None:
        """Wait until the service holds back the answers to `number` requests."""
        async with asyncio.timeout(30):
            while self._waiting < number:
                await asyncio.sleep(0.01)
        assert self._waiting == number


@pytest.fixture
def outage(faulty: FaultyService) -> Iterator[Outage]:
    made = Outage(faulty)
    yield made
    made.end()


async def save(resources: Resources) -> str:
    image = await service.save(
        resources, sample_image(), category=ImageCategory.GENERAL, origin=ResourceOrigin.INTERNAL
    )
    return image.image_name


async def other_work(client: httpx.AsyncClient) -> None:
    """Do what needs a thread, but no storage."""
    async with asyncio.timeout(20):
        assert (await client.get("/api/v1/utilities/fonts")).status_code == 200
        assert await in_thread(lambda: 1) == 1
        assert await off_loop(lambda: 2) == 2
        assert await image_work.image_work(lambda: 3) == 3


async def test_requests_for_images_end_and_other_requests_go_on(
    client: httpx.AsyncClient, resources: Resources, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that get a thread wait for the service, and the others for a thread, for a while."""
    name = await save(resources)
    monkeypatch.setattr(threads, "WAIT_S", 0.5)
    outage.begin()
    url = f"/api/v1/images/i/{name}/full"
    requests = [asyncio.create_task(client.get(url)) for _ in range(threads.THREADS + 5)]
    await outage.waiting(threads.THREADS)
    await other_work(client)
    async with asyncio.timeout(30):
        while len([request for request in requests if request.done()]) < 5:
            await asyncio.sleep(0.01)
    refused = [request.result() for request in requests if request.done()]
    assert [(answer.status_code, answer.headers["retry-after"]) for answer in refused] == [(503, "10")] * 5
    await other_work(client)
    outage.end()
    answers = await asyncio.gather(*requests)
    assert sorted(answer.status_code for answer in answers) == [200] * threads.THREADS + [503] * 5
    assert (await client.get(url)).status_code == 200


async def test_no_operation_on_images_waits_for_the_storage_in_other_threads(
    client: httpx.AsyncClient, resources: Resources, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    current_default_thread_limiter().total_tokens = 2
    monkeypatch.setattr(image_work, "WHOLE_FILES", 6)  # those of images that are saved, and of the compatibility API
    names = [await save(resources) for _ in range(3)]
    lost = [await save(resources) for _ in range(3)]
    await asyncio.to_thread(resources.storage.delete, [f"images/thumbnails/{name[:-4]}.webp" for name in lost])
    at = "/api/v1/images/i/"

    def upload(_: str) -> Awaitable[httpx.Response]:
        return client.post("/api/v1/images/upload", params=UPLOAD, files={"file": ("x.png", png, "image/png")})

    def preset(_: str) -> Awaitable[httpx.Response]:
        data = '{"name": "p", "positive_prompt": "", "negative_prompt": "", "type": "user"}'
        return client.post("/api/v1/style_presets/", data={"data": data}, files={"image": ("a.png", png, "image/png")})

    async def find_orphans(_: str) -> None:
        async for _keys in orphans.find(resources, {}):
            pass

    png = encode_image(sample_image())
    operations: dict[str, Callable[[str], Awaitable[Any]]] = {
        "save": lambda _: save(resources),
        "upload": upload,
        "full": lambda name: client.get(f"{at}{name}/full"),
        "thumbnail": lambda name: client.get(f"{at}{name}/thumbnail"),
        "texts": lambda name: client.get(f"{at}{name}/workflow"),
        "compatibility API": lambda name: image_io.read_image_file(resources, name),
        "preset": preset,
        "orphans": find_orphans,
    }
    outage.begin()
    tasks = [asyncio.ensure_future(run(name)) for run in operations.values() for name in names]
    await outage.waiting(len(tasks))
    await other_work(client)
    assert not any(task.done() for task in tasks)
    outage.end()
    for result in await asyncio.gather(*tasks):
        assert not isinstance(result, httpx.Response) or result.is_success


async def test_lost_thumbnails_and_deletions_wait_in_threads_of_the_storage(
    client: httpx.AsyncClient, resources: Resources, outage: Outage
) -> None:
    current_default_thread_limiter().total_tokens = 2
    names = [await save(resources) for _ in range(6)]
    lost, deleted = names[:3], names[3:]
    await asyncio.to_thread(resources.storage.delete, [f"images/thumbnails/{name[:-4]}.webp" for name in lost])
    outage.begin()
    outage.service.affects = lambda _method, path: "/thumbnails/" not in path
    tasks = [asyncio.create_task(client.get(f"/api/v1/images/i/{name}/thumbnail")) for name in lost]
    tasks += [asyncio.create_task(client.delete(f"/api/v1/images/i/{name}")) for name in deleted]
    await outage.waiting(6)
    await other_work(client)
    outage.end()
    assert [answer.status_code for answer in await asyncio.gather(*tasks)] == [200] * 6
    assert list(intent_log.folder(resources.settings).glob("*")) == []


async def test_requests_for_one_lost_thumbnail_fail_together(resources: Resources) -> None:
    name = await save(resources)
    await asyncio.to_thread(resources.storage.delete, [f"images/thumbnails/{name[:-4]}.webp"])
    calls: list[ImageLocation] = []

    async def make(location: ImageLocation) -> bytes:
        calls.append(location)
        raise StorageUnreachable(errno.EHOSTUNREACH, "no response in time", "x")

    requests = [thumbnails.regenerate(resources, name, IMAGES, make) for _ in range(5)]
    results = await asyncio.gather(*requests, return_exceptions=True)
    assert [type(result) for result in results] == [StorageUnreachable] * 5
    assert len(calls) == 1
    with pytest.raises(StorageUnreachable):
        await thumbnails.regenerate(resources, name, IMAGES, make)
    assert len(calls) == 2


async def test_a_call_whose_task_is_cancelled_keeps_its_thread() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        assert go_on.wait(30)
        raise OSError("nobody is interested")

    task = asyncio.create_task(threads.in_storage_thread(call))
    assert await asyncio.to_thread(begun.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert threads._SLOTS.get().borrowed_tokens == 1
    go_on.set()
    async with asyncio.timeout(30):
        while threads._SLOTS.get().borrowed_tokens:
            await asyncio.sleep(0.01)
