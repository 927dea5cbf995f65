"""Zip files of images, which every server on one database and one storage sends."""

import asyncio
import io
import os
import zipfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import orphans, service
from invokeclone.images.archives import ready_zips
from invokeclone.images.archives.api import router
from invokeclone.images.archives.service import FOLDER, UNFINISHED, ImageDownloads
from invokeclone.images.errors import DownloadNotFound
from invokeclone.kit.resources import Resources
from tests.applications import sample_image
from tests.images.people import ANN, asking, multiuser, register

ROUTE = "/api/v1/images/download"


class ZipServer:
    """A server's zip files, and a client of it for each account."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.zips = ImageDownloads(resources)
        self.people: dict[str, httpx.AsyncClient] = {}

    async def make(self, image_name: str) -> str:
        """Create a zip file for Ann, and return its name when it is ready."""
        answer = await self.people["ann"].post(ROUTE, json={"image_names": [image_name]})
        await asyncio.gather(*self.zips._tasks)
        return str(answer.json()["bulk_download_item_name"])


@pytest.fixture
async def servers(pair: list[Resources]) -> AsyncIterator[list[ZipServer]]:
    await register(pair[0].database)
    both = [ZipServer(multiuser(resources)) for resources in pair]
    async with AsyncExitStack() as stack:
        for server in both:
            await server.zips.start()
            parts = {ImageDownloads: server.zips}
            server.people = await stack.enter_async_context(asking(server.resources, router, parts=parts))
            stack.push_async_callback(server.zips.stop)
        yield both


@pytest.fixture
async def image_name(pair: list[Resources]) -> str:
    category, origin = ImageCategory.GENERAL, ResourceOrigin.INTERNAL
    saved = await service.save(
        pair[0], sample_image(), category=category, origin=origin, is_intermediate=False, user_id="ann"
    )
    return saved.image_name


def stored(server: ZipServer) -> list[Path]:
    folder = Path(server.resources.storage.address) / ready_zips.ZIPS
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_a_zip_file_of_one_server_is_downloaded_once_from_another(
    servers: list[ZipServer], image_name: str
) -> None:
    first, second = servers
    name = await first.make(image_name)
    assert (await second.people["bob"].get(f"{ROUTE}/{name}")).status_code == 403
    path = f"{ROUTE}/{name}"
    answers = await asyncio.gather(*[server.people["ann"].get(path) for server in servers for _ in range(3)])
    assert sorted(answer.status_code for answer in answers) == [200, 404, 404, 404, 404, 404]
    (content,) = [answer.content for answer in answers if answer.is_success]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == [f"general/{image_name}"]
    assert stored(first) == []


async def test_of_two_servers_that_find_a_zip_file_one_gets_it(
    servers: list[ZipServer], image_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = servers
    name = await first.make(image_name)
    key = second.zips.ready._find(name)
    first.zips.ready.claim(ANN, name)
    monkeypatch.setattr(second.zips.ready, "_find", lambda _name: key)
    with pytest.raises(DownloadNotFound):
        second.zips.ready.claim(ANN, name)


async def test_a_zip_file_stays_when_its_server_stops_and_for_its_time(
    servers: list[ZipServer], image_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = servers
    names = [await first.make(image_name) for _ in range(2)]
    await first.zips.stop()
    await second.zips.start()
    assert (await second.people["root"].get(f"{ROUTE}/{names[0]}")).status_code == 200
    second.zips.ready.claim(ANN, names[1])  # by a server that is killed then
    assert (await second.people["ann"].get(f"{ROUTE}/{names[1]}")).status_code == 404
    monkeypatch.setattr(ready_zips, "RETENTION_S", -1)
    await second.zips.start()
    assert stored(second) == []


async def test_a_server_removes_the_zip_files_that_it_was_moving_when_it_was_killed(
    servers: list[ZipServer], image_name: str
) -> None:
    first, second = servers
    name = await second.make(image_name)
    folder = Path(first.resources.storage.address) / ready_zips.ZIPS / "ann"
    unfinished = first.resources.settings.outputs_path / FOLDER / UNFINISHED / "ann" / "killed.zip"
    unfinished.parent.mkdir(parents=True)
    unfinished.write_bytes(b"zip")
    for left in ("killed.zip", ".killed.zip.0123abcd.part"):
        (folder / left).write_bytes(b"z")
    await first.zips.start()
    assert [path.name for path in stored(first)] == [name]


async def test_an_old_zip_file_that_is_being_sent_is_no_orphan(servers: list[ZipServer], image_name: str) -> None:
    server = servers[0]
    key = f"{ready_zips.ZIPS}/ann/{await server.make(image_name)}"

    def age(name: str) -> None:
        path = server.resources.storage.local_path(name)
        assert path is not None
        at = path.stat().st_mtime - 25 * 3600
        os.utime(path, (at, at))

    age(key)
    server.zips.ready.claim(ANN, key.rpartition("/")[2])
    assert [keys async for keys in orphans.find(server.resources, {})] == []
    age(key + ready_zips.CLAIMED)
    (keys,) = [keys async for keys in orphans.find(server.resources, {})]
    assert sorted(keys) == [key, key + ready_zips.CLAIMED]
