"""Models on a worker of another machine: shared, or fetched into a cache whose size, content and users are minded."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from invokeclone.graph.context import CanceledException
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.errors import InstallCancelled
from invokeclone.models.records import served_files, store
from invokeclone.models.records.served_files import (
    FilesNotServed,
    ModelListing,
    ServedFile,
    ServedFileChanged,
    ServedFileMissing,
)
from invokeclone.worker.backend import model_cache
from invokeclone.worker.backend.errors import ModelNotFetched, NotOnThisWorker
from invokeclone.worker.backend.model_cache import MODEL_FILE, FetchedFiles, FetchedModels, check_names
from tests.worker.joined import Link
from tests.worker.test_context import config

KIB = 1024
Install = Callable[..., Awaitable[ModelConfig]]


@pytest.fixture(autouse=True)
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RETRY_S", (0,) * 5), ("HASH_POLL_S", 0), ("PROGRESS_INTERVAL_S", 0)):
        monkeypatch.setattr(model_cache, name, value)


@pytest.fixture
def install(resources: Resources) -> Install:
    """Write files of a model and its record; one file without a folder if it is named as the path."""

    async def act(path: str, files: dict[str, bytes], **fields: Any) -> ModelConfig:
        root = resources.settings.models_path / path
        for name, content in files.items():
            file = root / name if name else root
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        record = config(key=fields.pop("key", Path(path).name), path=path, name=Path(path).name, **fields)
        async with resources.database.write() as connection:
            await store.add(connection, record)
        return record

    return act


class Records:
    """Searches the database as the link does."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    async def search_models(self, *, path: str) -> list[ModelConfig]:
        return await store.search(self.resources.database, path=path)


@pytest.fixture
def worker(link: Link, resources: Resources, tmp_path: Path) -> Callable[..., FetchedFiles]:
    """Return the files of models for an item of a worker with these settings."""

    def make(**settings: Any) -> FetchedFiles:
        own = Settings(root=tmp_path / "worker", **settings)
        return FetchedModels(link, own).files(Records(resources))

    return make


def silent(_message: str, _share: float | None) -> None:
    """Report nothing."""


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FILES = {"model_index.json": b"{}", "unet/weights.bin": bytes(range(256)) * 40, "unet/empty": b""}


async def test_folders_and_single_files_are_fetched_once(worker: Any, install: Install, link: Link) -> None:
    folder = await install("sd/folder", FILES | {".hidden": b"x", ".cache/x": b"x"})
    single = await install("sd/single.safetensors", {"": b"weights"}, key="a/b ü")
    reports: list[tuple[str, float | None]] = []
    item = worker()
    path = await item.path(folder, lambda message, share: reports.append((message, share)))
    assert (path.name, tree(path)) == ("folder", FILES)
    assert reports[0][0] == "Fetching model folder"
    assert reports[-1][1] == 1.0
    path = await item.path(single, silent)
    assert (path.name, path.read_bytes()) == ("single.safetensors", b"weights")
    assert await item.read_file(folder, "model_index.json") == b"{}"
    item.close()
    transfers = [request for request, _ in link.requests if MODEL_FILE + "?" in request]
    assert len(transfers) == 3  # an empty file needs none
    again = worker()  # of another process, or after a restart
    assert await again.path(single, silent) == path
    assert len(link.requests) == len(transfers) + 3


async def test_a_transfer_continues_where_it_was_cut(worker: Any, install: Install, link: Link) -> None:
    record = await install("sd/m", {"a.bin": b"0123456789abcdef"})
    link.cuts = 2
    path = await worker().path(record, silent)
    assert tree(path) == {"a.bin": b"0123456789abcdef"}
    assert [start for request, start in link.requests if MODEL_FILE + "?" in request] == [0, 8, 12]


async def test_a_canceled_transfer_continues_later(worker: Any, install: Install, link: Link) -> None:
    record = await install("sd/m", {"a.bin": b"01234567", "b.bin": b"x"})
    link.cuts = 1

    def cancel(_message: str, share: float | None) -> None:
        if share:
            raise CanceledException("canceled")

    with pytest.raises(CanceledException):
        await worker().path(record, cancel)
    assert tree(await worker().path(record, silent)) == {"a.bin": b"01234567", "b.bin": b"x"}
    assert [start for request, start in link.requests if "a.bin" in request] == [0, 4]


async def test_without_a_connection_the_model_is_not_fetched(worker: Any, install: Install, link: Link) -> None:
    record = await install("sd/m", {"a.bin": b""})
    (Path(link.dispatcher._resources.settings.models_path) / "sd/m/a.bin").write_bytes(b"1")
    link.cuts = 1000
    with pytest.raises(ModelNotFetched, match="connection to the server was cut"):
        await worker().path(record, silent)


async def test_a_file_that_changes_meanwhile_is_fetched_anew(
    worker: Any, install: Install, link: Link, resources: Resources
) -> None:
    record = await install("sd/m", {"a.bin": b"01234567", "b.bin": b"x"})
    changed = resources.settings.models_path / "sd/m/a.bin"
    link.cuts = 1

    def change(_message: str, share: float | None) -> None:
        if changed.stat().st_size == 8:
            changed.write_bytes(b"new content")

    assert tree(await worker().path(record, change)) == {"a.bin": b"new content", "b.bin": b"x"}


async def test_damaged_content_is_fetched_again_and_never_used(
    worker: Any, install: Install, link: Link, monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    record = await install("sd/m", {"a.bin": b"0123", "b.bin": b"y"})
    original, damages = served_files.ServedModels.path, [1]

    async def path(self: Any, key: str, name: str, version: str | None = None) -> Path:
        found = await original(self, key, name, version)
        if name == "a.bin" and damages[0]:
            damages[0] -= 1
            copy = found.parents[3] / "damaged"
            copy.write_bytes(found.read_bytes()[::-1])
            return copy
        return found

    monkeypatch.setattr(served_files.ServedModels, "path", path)
    assert tree(await worker().path(record, silent)) == {"a.bin": b"0123", "b.bin": b"y"}
    assert [line.getMessage() for line in logged if "a.bin" in line.getMessage()]
    other = await install("sd/n", {"a.bin": b"0123456"})
    damages[0] = 1000
    with pytest.raises(ModelNotFetched, match="could not be fetched in 3 attempts"):
        await worker().path(other, silent)


async def test_hashes_are_computed_once_and_may_come_late(
    worker: Any, install: Install, link: Link, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await install("sd/m", FILES)
    assert {file.hash for file in (await link.models.listing("m", wait_s=0)).files} <= {None}
    complete = await link.models.listing("m")
    assert all((file.hash or "").startswith("blake3:") for file in complete.files)
    monkeypatch.setattr(served_files, "hash_file", lambda *_: pytest.fail("hashed again"))
    assert await served_files.ServedModels(resources).listing("m") == complete
    (stored,) = (resources.settings.database_path.parent / served_files.FOLDER).iterdir()
    stored.write_bytes(b"[")
    monkeypatch.undo()
    listing, waits = link.models.listing, [0.0, 10.0, 10.0]
    monkeypatch.setattr(link.models, "listing", lambda key: listing(key, waits.pop(0)))
    assert tree(await worker().path(record, silent)) == FILES
    async with resources.database.write() as connection:
        await store.delete(connection, "m")
    await install("sd/n", {"a.bin": b"n"})
    await link.models.listing("n")
    assert not stored.exists()


async def test_hashing_stops_with_the_server_and_its_errors_are_reported(install: Install, link: Link) -> None:
    await install("sd/m", FILES)
    await link.models.listing("m", wait_s=0)
    await link.models.close()
    with pytest.raises(InstallCancelled):
        await link.models.listing("m", wait_s=10)


async def test_the_models_used_longest_ago_are_removed(worker: Any, install: Install, tmp_path: Path) -> None:
    records = [await install(f"sd/{name}", {"a.bin": name.encode() * 400}) for name in "abcd"]
    limit = 1000 / model_cache.GB
    cache = tmp_path / "worker" / "model_cache"

    async def use(record: ModelConfig, item: FetchedFiles | None = None) -> Path:
        files = item or worker(max_model_cache_gb=limit)
        path = await files.path(record, silent)
        if item is None:
            files.close()
        for manifest in cache.glob("*.json"):  # times of one clock tick would be equal
            os.utime(manifest, ns=(0, manifest.stat().st_mtime_ns - 10**9))
        return path

    first, second = [await use(record) for record in records[:2]]
    await use(records[0])
    third = await use(records[2])
    assert [path.exists() for path in (first, second, third)] == [True, False, True]
    running = worker(max_model_cache_gb=limit)
    assert await use(records[0], running) == first
    await use(records[2])
    fourth = await use(records[3])  # the first was used longest ago, but an item uses it
    assert [path.exists() for path in (first, third, fourth)] == [True, False, True]
    await use(records[3], running)
    with pytest.raises(ModelNotFetched, match="beside those in use"):
        await use(records[1])
    running.close()
    await use(records[1])
    large = await install("sd/large", {"a.bin": b"x" * 1001})
    with pytest.raises(ModelNotFetched, match="max_model_cache_gb"):
        await use(large)
    assert sum(path.stat().st_size for path in cache.rglob("a.bin*")) <= 1000


HOLD = """
import sys, time
from pathlib import Path
from invokeclone.worker.backend.cache_folder import CacheFolder
use = CacheFolder(Path(sys.argv[1]), 1000).use(sys.argv[2], sys.argv[3])
print(use.path, flush=True)
time.sleep(600)
"""


async def test_a_model_in_use_by_another_process_stays_until_that_dies(
    worker: Any, install: Install, tmp_path: Path
) -> None:
    records = [await install(f"sd/{name}", {"a.bin": name.encode() * 600}) for name in "ab"]
    item = worker(max_model_cache_gb=1000 / model_cache.GB)
    path = await item.path(records[0], silent)
    item.close()
    arguments = [str(path.parents[1]), path.parent.name, path.name]
    holder = subprocess.Popen([sys.executable, "-c", HOLD, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout
        assert holder.stdout.readline().strip() == str(path)
        with pytest.raises(ModelNotFetched, match="beside those in use"):
            await item.path(records[1], silent)
    finally:
        holder.kill()
        holder.communicate()
    await item.path(records[1], silent)
    assert not path.exists()


async def test_workers_of_one_machine_fetch_a_model_once(worker: Any, install: Install, link: Link) -> None:
    record = await install("sd/m", FILES)
    items = [worker() for _ in range(4)]
    paths = await asyncio.gather(*(item.path(record, silent) for item in items))
    assert len(set(paths)) == 1
    assert len([request for request, _ in link.requests if "weights.bin" in request]) == 1


async def test_a_shared_folder_is_used_if_its_files_have_the_same_sizes(
    worker: Any, install: Install, link: Link, resources: Resources, tmp_path: Path, logged: Any
) -> None:
    record = await install("sd/m", FILES)
    single = await install("sd/s.bin", {"": b"weights"})
    shared = resources.settings.models_path
    item = worker(shared_models_dir=shared)
    assert await item.path(record, silent) == shared / "sd/m"
    assert await item.path(single, silent) == shared / "sd/s.bin"
    assert [model.key for model in await item.search_by_path(shared / "sd/m")] == ["m"]
    assert not [request for request, _ in link.requests if MODEL_FILE + "?" in request]
    stale = tmp_path / "stale"
    (stale / "sd/m").mkdir(parents=True)
    (stale / "sd/m/model_index.json").write_bytes(b"{ }")
    for _ in range(2):
        assert tree(await worker(shared_models_dir=stale).path(record, silent)) == FILES
    assert any("has another size than on the server" in line.getMessage() for line in logged)


async def test_a_path_that_only_the_server_has_is_refused(worker: Any, install: Install, resources: Resources) -> None:
    await install("sd/m", FILES)
    item = worker()
    for path in ("sd", "no/such", "/etc/no-such-file", str(resources.settings.database_path.with_suffix(".x"))):
        with pytest.raises(NotOnThisWorker, match="server's machine"):
            await item.path_of(path, silent)
    assert (await item.path_of("sd/m/unet", silent)).is_dir()


async def test_missing_files_are_reported(worker: Any, install: Install) -> None:
    record = await install("sd/m", {})
    with pytest.raises(
        ModelNotFetched, match="m cannot be fetched from the server: the files of the model m are missing"
    ):
        await worker().path(record, silent)
    assert await worker().read_file(record, "config.json") is None


# What the server serves


async def test_only_listed_files_are_served(link: Link, install: Install, resources: Resources) -> None:
    await install("sd/m", FILES | {".secret": b"x"})
    await install("sd/s.bin", {"": b"weights"})
    assert (await link.models.path("m", "unet/weights.bin")).read_bytes() == FILES["unet/weights.bin"]
    assert (await link.models.path("s.bin", "s.bin")).read_bytes() == b"weights"
    for key, name in (
        ("m", "../s.bin"), ("m", "unet/../model_index.json"), ("m", "/etc/passwd"), ("m", ".secret"), ("m", ""), ("m", "unet"),
        ("s.bin", "../m/model_index.json"), ("s.bin", ""),
    ):  # fmt: skip
        with pytest.raises(ServedFileMissing):
            await link.models.path(key, name)
    with pytest.raises(ServedFileChanged):
        await link.models.path("m", "model_index.json", "1")


async def test_models_outside_the_models_folder_are_served(link: Link, install: Install, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    await install(str(tmp_path / "elsewhere" / "m"), FILES)
    assert [file.path for file in (await link.models.listing("m")).files] == sorted(FILES)


async def test_links_out_of_the_folder_are_refused(link: Link, install: Install, resources: Resources) -> None:
    models = resources.settings.models_path
    (models / "secret").mkdir(parents=True)
    (models / "secret" / "key").write_bytes(b"key")
    await install("sd/m", {"a.bin": b"a"})
    (models / "sd/m/inside").symlink_to("a.bin")
    assert [file.path for file in (await link.models.listing("m")).files] == ["a.bin", "inside"]
    for target in ("../../secret/key", "../../secret", "/etc/passwd"):
        (models / "sd/m/out").symlink_to(target)
        with pytest.raises(FilesNotServed, match="out is a link out of its folder"):
            await link.models.path("m", "a.bin")
        (models / "sd/m/out").unlink()
    snapshot = await install("hub/model/snapshots/main", {})
    (models / "hub/model/blobs").mkdir(parents=True)
    (models / "hub/model/blobs/123").write_bytes(b"blob")
    (models / snapshot.path).mkdir(parents=True)
    (models / snapshot.path / "config.json").symlink_to("../../blobs/123")
    assert (await link.models.path("main", "config.json")).read_bytes() == b"blob"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "", "a//b", ".", "a/."])
def test_a_worker_refuses_names_outside_the_folder(name: str) -> None:
    for listing in (
        ModelListing(key="m", name="m", is_folder=True, files=[ServedFile(path=name, size=1, version="1")]),
        ModelListing(key="m", name=name, is_folder=False, files=[]),
    ):
        with pytest.raises(ModelNotFetched):
            check_names(listing)
