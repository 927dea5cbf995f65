"""Lost thumbnails: created once, whoever asks; an image or video is not read again and again for one."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from invokeclone.images import files
from invokeclone.images import thumbnails as regeneration
from invokeclone.images.api import router as images_router
from invokeclone.images.media_kinds import IMAGES, VIDEOS, MediaKind
from invokeclone.images.schemas import ImageLocation
from invokeclone.images.videos.api import router as videos_router
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database
from invokeclone.kit.storage.s3 import S3Storage
from tests.applications import decode_image, encode_image, sample_image, serving
from tests.images.videos.conftest import encode_video


@pytest.fixture
def resources(s3_settings: Settings, database: Database, events: Any) -> Resources:
    return Resources(s3_settings, database, events)


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(resources, images_router, videos_router) as served:
        yield served


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the requests for the content of each object."""
    counted: Counter[str] = Counter()
    get_range = S3Storage.get_range

    def count(storage: S3Storage, key: str, start: int, end: int) -> Any:
        counted[key] += 1
        return get_range(storage, key, start, end)

    monkeypatch.setattr(S3Storage, "get_range", count)
    return counted


@pytest.fixture(params=[IMAGES, VIDEOS], ids=str)
def kind(request: pytest.FixtureRequest) -> MediaKind:
    kind: MediaKind = request.param
    return kind


@pytest.fixture
async def location(client: httpx.AsyncClient, resources: Resources, kind: MediaKind) -> ImageLocation:
    """Upload an image or a video, whose thumbnail is lost."""
    content = ("x.png", encode_image(sample_image())) if kind is IMAGES else ("x.mp4", encode_video(), "video/mp4")
    answer = await client.post(
        f"/api/v1/{kind}s/upload",
        params={f"{kind}_category": "general", "is_intermediate": "false"},
        files={"file": content},
    )
    assert answer.status_code == 201, answer.text
    place = ImageLocation(answer.json()[f"{kind}_name"], "")
    await asyncio.to_thread(resources.storage.delete, [files.thumbnail_key(place, kind)])
    return place


async def test_one_of_several_requests_creates_it(
    client: httpx.AsyncClient, resources: Resources, reads: Counter[str], kind: MediaKind, location: ImageLocation
) -> None:
    url = f"/{kind.url(location.name, 'thumbnail')}"
    answers = await asyncio.gather(*(client.get(url) for _ in range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.content for answer in answers}) == 1
    assert max(decode_image(answers[0].content).size) > 1
    assert reads[files.full_key(location, kind)] == 1
    assert await asyncio.to_thread(resources.storage.get, files.thumbnail_key(location, kind)) == answers[0].content


async def test_a_damaged_file_is_read_once(
    client: httpx.AsyncClient, resources: Resources, reads: Counter[str], kind: MediaKind, location: ImageLocation
) -> None:
    key, url = files.full_key(location, kind), f"/{kind.url(location.name, 'thumbnail')}"
    content = await asyncio.to_thread(resources.storage.get, key)
    await asyncio.to_thread(resources.storage.write, key, content[:40], replace=True)
    reads.clear()
    answers = [await client.get(url) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [404 if kind is IMAGES else 415] * 3
    assert answers[0].json() == answers[2].json()
    assert reads[key] == 1


async def test_a_missing_file_may_come_back(
    client: httpx.AsyncClient, resources: Resources, kind: MediaKind, location: ImageLocation
) -> None:
    """Such as one that another server moves at the moment."""
    key, url = files.full_key(location, kind), f"/{kind.url(location.name, 'thumbnail')}"
    content = await asyncio.to_thread(resources.storage.get, key)
    await asyncio.to_thread(resources.storage.delete, [key])
    assert (await client.get(url)).status_code == 404
    await asyncio.to_thread(resources.storage.write, key, content)
    assert (await client.get(url)).status_code == 200


async def test_a_thumbnail_that_cannot_be_stored_is_created_once(
    client: httpx.AsyncClient,
    reads: Counter[str],
    kind: MediaKind,
    location: ImageLocation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise PermissionError(13, "not permitted")

    monkeypatch.setattr(S3Storage, "write", refuse)
    url = f"/{kind.url(location.name, 'thumbnail')}"
    answers = [await client.get(url) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert reads[files.full_key(location, kind)] == 1


async def test_no_permission_to_read_is_no_missing_image(
    client: httpx.AsyncClient, kind: MediaKind, location: ImageLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_range = S3Storage.get_range

    def refuse(storage: S3Storage, key: str, start: int, end: int) -> Any:
        if key == files.full_key(location, kind):
            raise PermissionError(13, "not permitted")
        return get_range(storage, key, start, end)

    monkeypatch.setattr(S3Storage, "get_range", refuse)
    for part in ("thumbnail", "full") if kind is VIDEOS else ("thumbnail", "full", "workflow"):
        assert (await client.get(f"/{kind.url(location.name, part)}")).status_code == 507


def test_outcomes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regeneration, "MAX_OUTCOMES", 2)
    outcomes = regeneration._Outcomes()
    for name in "abc":
        outcomes.add(name, name.encode())
    assert [outcomes.get(name) for name in "abc"] == [None, b"b", b"c"]
    monkeypatch.setattr(regeneration, "REMEMBERED_S", -1)
    outcomes.add("b", b"b")
    assert outcomes.get("b") is None
