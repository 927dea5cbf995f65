"""An image that a worker sends again, to another server on the same database and storage: one object, one record, one response."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from invokeclone.graph.invocations import registry
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images import files, intent_log
from invokeclone.images.media_kinds import IMAGES
from invokeclone.images.schemas import ImageDTO, ImageLocation
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Bus
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.postgres_database import PostgresDatabase
from invokeclone.queue import claims, service
from invokeclone.queue.batches import Batch
from invokeclone.worker.backend.dispatch import Dispatcher, NameTaken
from invokeclone.worker.backend.operations import Holder
from invokeclone.worker.backend.protocol import NodeImage
from invokeclone.worker.backend.transfers import SentImage, pack
from tests.faults import image_names
from tests.postgres import PostgresServer

GRAPH = {"nodes": {"a": {"id": "a", "type": "integer", "value": 1}}, "edges": []}
WORKER = "joined:tests:cpu"
BODY = pack(Image.new("L", (4, 4)), NodeImage(category=ImageCategory.GENERAL, node_id="n", is_intermediate=True), 1)
SENT = SentImage(BODY)
LOCATION = ImageLocation(SENT.header.name, "")


@pytest.fixture(params=["local", "s3"])
async def servers(
    request: pytest.FixtureRequest, settings: Settings, postgres: PostgresServer, tmp_path: Path
) -> AsyncIterator[list[Resources]]:
    if request.param == "s3":
        settings = request.getfixturevalue("s3_settings")
    else:
        settings = settings.model_copy(update={"storage_url": (tmp_path / "shared").as_uri()})
    address = postgres.clean_database()
    async with AsyncExitStack() as stack:
        peers = []
        for name in "ab":
            database = PostgresDatabase(address)
            stack.push_async_callback(database.close)
            peers.append(Resources(settings.model_copy(update={"root": tmp_path / name}), database, Bus()))
        yield peers


@pytest.fixture
async def holder(servers: list[Resources]) -> Holder:
    registry.discover()
    await service.enqueue(servers[0], "default", Batch.model_validate({"graph": GRAPH, "runs": 1}))
    item = await claims.claim(servers[0], "cpu", worker_id=WORKER)
    assert item
    return Holder(WORKER, item.item_id, item.fence)


class Writers:
    """Lets the requests wait after they have written their files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.written: list[threading.Event] = []
        self.go_on = threading.Event()
        self._write = files.write
        monkeypatch.setattr(files, "write", self._write_and_wait)

    def _write_and_wait(self, *arguments: Any) -> None:
        self._write(*arguments)
        self.written.append(self.go_on)
        assert self.go_on.wait(30)

    async def until_written(self) -> None:
        async with asyncio.timeout(30):
            while not self.written:
                await asyncio.sleep(0.01)


async def until_one_waits_for_a_lock(resources: Resources) -> None:
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with asyncio.timeout(30):
        while not (await resources.database.fetch(query, ()))[0][0]:
            await asyncio.sleep(0.01)


def objects(resources: Resources) -> set[str]:
    return {stat.key for stat in resources.storage.list("images")}


async def check(servers: list[Resources]) -> None:
    assert await image_names(servers[0]) == {LOCATION.name}
    assert await asyncio.to_thread(objects, servers[0]) == set(files.keys(LOCATION))
    for resources in servers:
        assert list(intent_log.folder(resources.settings).glob("*")) == []


def send(resources: Resources, holder: Holder) -> "asyncio.Task[ImageDTO]":
    return asyncio.create_task(Dispatcher(resources).receive_image(BODY, holder))


async def test_two_servers_get_an_image_at_once(
    servers: list[Resources], holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers = Writers(monkeypatch)
    first = send(servers[0], holder)
    await writers.until_written()
    second = send(servers[1], holder)
    await until_one_waits_for_a_lock(servers[0])
    assert len(writers.written) == 1
    writers.go_on.set()
    assert await first == await second
    await check(servers)


async def test_the_first_request_is_canceled_before_its_record(
    servers: list[Resources], holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers = Writers(monkeypatch)
    first = send(servers[0], holder)
    await writers.until_written()
    second = send(servers[1], holder)
    first.cancel()
    await until_one_waits_for_a_lock(servers[0])
    assert len(writers.written) == 1
    writers.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await second).image_name == LOCATION.name
    await check(servers)


async def leave_files(resources: Resources, content: bytes = SENT.png) -> None:
    """Leave what a server leaves that is killed between files and record."""
    intent = intent_log.Intent(resources.settings)
    intent.write(IMAGES, [LOCATION])
    await asyncio.to_thread(files.write, resources.storage, LOCATION, content, SENT.webp)
    intent.close(remove=False)


async def test_the_first_server_is_killed_before_the_record(servers: list[Resources], holder: Holder) -> None:
    await leave_files(servers[0])
    record = await send(servers[1], holder)
    await intent_log.settle_all(servers[0], alone=True)
    assert await send(servers[0], holder) == record
    await check(servers)


async def test_the_killed_server_starts_again_while_another_stores_the_image(
    servers: list[Resources], holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leave_files(servers[0])
    writers = Writers(monkeypatch)
    storing = send(servers[1], holder)
    await writers.until_written()
    settling = asyncio.create_task(intent_log.settle_all(servers[0], alone=True))
    await until_one_waits_for_a_lock(servers[0])
    writers.go_on.set()
    await asyncio.gather(storing, settling)
    await check(servers)


async def test_a_file_of_the_name_with_other_content_is_refused(servers: list[Resources], holder: Holder) -> None:
    await leave_files(servers[0], b"other")
    with pytest.raises(NameTaken):
        await send(servers[1], holder)
    assert await image_names(servers[0]) == set()
