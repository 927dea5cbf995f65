"""A queue of downloads, an installer and an application on the fake web."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from invokeclone.downloads import transfer
from invokeclone.downloads.api import router as queue
from invokeclone.downloads.queue import DownloadQueue
from invokeclone.downloads.schemas import DownloadJob
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.kit.workers import Workers
from invokeclone.models.api import router as models
from invokeclone.models.install.service import Installer
from invokeclone.models.records import changes
from invokeclone.server.http import bodies
from invokeclone.server.http import errors as error_handlers
from tests.fake_web import FakeHub, FakeWeb, serve_fake_web


@pytest.fixture
async def fake_web() -> AsyncIterator[FakeWeb]:
    async with serve_fake_web() as web:
        yield web


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Let the local web be asked; nothing of this user's own."""
    return Settings(root=tmp_path / "root", device="cpu", log_format="plain", allow_private_download_urls=True)


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count every byte as it comes."""
    monkeypatch.setattr(transfer, "WRITE_BUFFER_BYTES", 1)


@pytest.fixture
async def downloads(resources: Resources, fake_web: FakeWeb) -> AsyncIterator[DownloadQueue]:
    download_queue = fake_web.watched = DownloadQueue(
        resources.settings,
        resources.events,
        reserved=lambda: changes.list_model_paths(resources),
        initial_retry_delay=0.01,
    )
    yield download_queue
    await download_queue.stop()


async def done(job: DownloadJob) -> DownloadJob:
    while not job.ended:
        await asyncio.sleep(0.005)
    return job


async def until(true: Any) -> None:
    while not true():
        await asyncio.sleep(0.005)


@pytest.fixture
def fake_hub(fake_web: FakeWeb, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    monkeypatch.setenv("HF_ENDPOINT", fake_web.url)
    return FakeHub(fake_web)


@pytest.fixture
async def installer(resources: Any, downloads: DownloadQueue, fake_hub: FakeHub) -> AsyncIterator[Installer]:
    model_installer = Installer(resources, downloads, persistent=True)
    await model_installer.start()
    yield model_installer
    await model_installer.stop()


@pytest.fixture
def app(resources: Any, installer: Installer, downloads: DownloadQueue, workers: Any) -> Application:
    application = Application(separate_input_output_schemas=False, generate_unique_id_function=lambda route: route.name)
    application.services.add(Resources, resources)
    application.services.add(Installer, installer)
    application.services.add(Workers, workers)
    application.services.add(DownloadQueue, downloads)
    error_handlers.install(application)
    application.include_router(bodies.read_strictly(models))
    application.include_router(bodies.read_strictly(queue))
    return application


@pytest.fixture
async def client(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http_client:
        yield http_client
