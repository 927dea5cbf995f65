"""Models that nodes fetch from the web: once, for all workers, with progress, until the item is canceled."""

import asyncio
import threading
from dataclasses import replace

import pytest

from invokeclone.downloads import transfer
from invokeclone.downloads.errors import AddressRefused, DownloadFailed
from invokeclone.graph.context import CanceledException
from invokeclone.models.install.download_cache import DownloadCache
from invokeclone.models.install.jobs import UnsupportedSource
from invokeclone.worker.interfaces.models import Models
from invokeclone.worker.interfaces.tools import Session
from tests.fake_web import FakeHub, FakeWeb, serve_fake_web


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"allow_private_download_urls": True})


@pytest.fixture
async def web(monkeypatch, tmp_path):
    monkeypatch.setattr(transfer, "WRITE_BUFFER_BYTES", 1)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    async with serve_fake_web() as fake_web:
        monkeypatch.setenv("HF_ENDPOINT", fake_web.url)
        yield fake_web


class ProgressRecorder:
    """The progress of a node."""

    def __init__(self):
        self.reports = []
        self.canceled = threading.Event()
        self.is_canceled = self.canceled.is_set

    def signal_progress(self, message, percentage=None):
        self.reports.append((message, percentage))


@pytest.fixture
def progress():
    return ProgressRecorder()


class FakeEngine:
    """Loads files and folders by whatever it is given."""

    def wait_until_imported(self) -> None:
        """Return at once: nothing is imported."""

    def watch_modules(self) -> None:
        """No module is run."""

    def unwatch_modules(self) -> None:
        """No module is run."""

    def load_file(self, path, loader):
        return loader(path)


@pytest.fixture
def models(tools, progress, make, canceled):
    session = Session(replace(tools, engine=FakeEngine()), make.item({"a": {"type": "toy_context"}}), None, canceled)
    return Models(session, progress)


async def test_file_is_downloaded_once_by_url(models, web: FakeWeb, progress, settings, channel):
    web.page("/big.safetensors", b"weights" * 1000)
    url = f"{web.url}/big.safetensors"
    path = await asyncio.to_thread(models.download_and_cache_model, url)
    assert (path.name, path.read_bytes()) == ("big.safetensors", b"weights" * 1000)
    assert path.is_relative_to(settings.download_cache_path)
    assert await asyncio.to_thread(models.download_and_cache_model, url) == path
    assert len(web.asked) == 1
    assert progress.reports
    assert all(message == "Downloading big.safetensors" and 0 <= share <= 1 for message, share in progress.reports)


async def test_repository_downloads_as_a_folder_and_single_file_as_a_file(models, web):
    hub = FakeHub(web)
    hub.repository("o/n", {"config.json": b"{}", "model.safetensors": b"x", "README.md": b"-", "deep/y.bin": b"y"})
    path = await asyncio.to_thread(models.download_and_cache_model, "o/n")
    assert sorted(entry.name for entry in path.iterdir()) == ["config.json", "model.safetensors"]
    assert (await asyncio.to_thread(models.download_and_cache_model, "o/n::deep/y.bin")).read_bytes() == b"y"


async def test_a_remote_model_is_loaded(models, web):
    web.page("/a.bin", b"data")
    loaded = await asyncio.to_thread(models.load_remote_model, f"{web.url}/a.bin", lambda path: path.read_bytes())
    assert loaded == b"data"


async def test_download_failures_are_raised_to_the_node(models, web, resources):
    web.page("/page", b"<html>", headers={"Content-Type": "text/html"})
    for source, error in (
        (f"{web.url}/nowhere", DownloadFailed),
        (f"{web.url}/page", DownloadFailed),
        ("x", UnsupportedSource),
    ):
        with pytest.raises(error):
            await asyncio.to_thread(models.download_and_cache_model, source)
    resources.settings = resources.settings.model_copy(update={"allow_private_download_urls": False})
    web.page("/a.bin", b"data")
    with pytest.raises((AddressRefused, DownloadFailed), match="not on the public internet"):
        await asyncio.to_thread(models.download_and_cache_model, f"{web.url}/a.bin")
    assert web.asked_for("/a.bin") == []


async def test_cancel_stops_the_download_which_is_resumed_later(models, web, progress, settings):
    page = web.page("/a.bin", b"x" * 1000, hold_after=100)
    work = asyncio.create_task(asyncio.to_thread(models.download_and_cache_model, f"{web.url}/a.bin"))
    while not [path for path in settings.root.rglob("a.bin.part") if path.stat().st_size == 100]:
        await asyncio.sleep(0.01)
    progress.canceled.set()
    with pytest.raises(CanceledException):
        await work
    progress.canceled.clear()
    page.hold_after = None
    path = await asyncio.to_thread(models.download_and_cache_model, f"{web.url}/a.bin")
    assert path.read_bytes() == page.data
    assert web.asked_for("/a.bin")[-1]["Range"] == "bytes=100-"


async def test_concurrent_downloads_fetch_the_file_once(resources, web, monkeypatch):
    """As two workers do it: the second waits for the first."""
    monkeypatch.setattr("invokeclone.kit.files.file_locks.POLL_S", 0.01)
    web.page("/a.bin", b"data")
    first, second = DownloadCache(resources), DownloadCache(resources)
    url = f"{web.url}/a.bin"
    assert len(set(await asyncio.gather(first.fetch(url), second.fetch(url), first.fetch(url)))) == 1
    assert len(web.asked) == 1
