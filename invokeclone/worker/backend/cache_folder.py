"""A folder of models fetched from a server, up to a size, shared by the workers of one machine.

An entry is a folder with a manifest (JSON: its size) beside it, whose time is that of the last use. A complete model is
named after the hash of its files' hashes; one being fetched after its key. Each use of a complete model holds a locked
marker file, which the system releases when the process dies. All functions block; each change is made under one lock.
"""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import orjson

from invokeclone.kit.files.file_locks import try_lock
from invokeclone.kit.files.storage import OWNER_FILE_MODE, make_folder, remove_file, write_file
from invokeclone.kit.process import processes
from invokeclone.models.records.served_files import ModelListing, ServedFile
from invokeclone.worker.backend.errors import ModelNotFetched

GB = 1024**3
_MARKER = ".use"
_PART = ".part"


class Use:
    """The use of a complete model, whose files stay until `close`."""

    def __init__(self, path: Path, marker: Path, descriptor: int) -> None:
        """Take the model's file or folder, and the locked marker."""
        self.path = path
        self._marker = marker
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """End the use."""
        if self._descriptor is not None:
            remove_file(self._marker)
            os.close(self._descriptor)
            self._descriptor = None


class _Entry(NamedTuple):
    name: str
    size: int
    last_used: float


class CacheFolder:
    """A folder of fetched models. Any number of processes may use it."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Keep at most `max_bytes` in `path`, which is created when needed."""
        self.path = path
        self._max_bytes = max_bytes

    def lock_path(self, key: str) -> Path:
        """Return the file whose lock a process holds while it fetches the model `key`."""
        make_folder(self.path)
        return self.path / f".{_short(key)}.lock"

    def use(self, digest: str, name: str) -> Use | None:
        """Return the use of a complete model, None if it is not here."""
        with self._lock():
            return self._use(digest, name)

    def reserve(self, key: str, size: int) -> Path:
        """Make room for a model, and return the folder to fetch it to, which may have files of an earlier attempt.

        Raises ModelNotFetched if the models in use leave no room.
        """
        entry = _short(key) + _PART
        with self._lock():
            self._free_space(size, entry)
            folder = self.path / entry
            make_folder(folder)
            self._write_manifest(entry, size)
        return folder

    def publish(self, key: str, digest: str, listing: ModelListing) -> Use:
        """Make a model complete whose verified files are in the folder of `reserve`, and return its use."""
        entry = _short(key) + _PART
        folder = self.path / entry
        _arrange(folder, listing)
        with self._lock():
            if not self._manifest(digest).exists():
                shutil.rmtree(self.path / digest, ignore_errors=True)
                folder.rename(self.path / digest)
                self._write_manifest(digest, sum(file.size for file in listing.files))
            self._remove(entry)
            use = self._use(digest, listing.name)
        if use is None:
            raise ModelNotFetched(f"{self.path / digest} was removed by another program")
        return use

    def _use(self, digest: str, name: str) -> Use | None:
        manifest, path = self._manifest(digest), self.path / digest / name
        if not (manifest.exists() and path.exists()):
            return None
        manifest.touch()
        marker = self.path / f"{digest}.{os.getpid()}-{uuid4().hex}{_MARKER}"
        descriptor = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_EXCL, OWNER_FILE_MODE)
        with contextlib.suppress(OSError):  # without locks, the process id in the name has to do
            try_lock(descriptor)
        return Use(path, marker, descriptor)

    def _free_space(self, size: int, exempt: str) -> None:
        """Remove the least recently used entries that nobody uses until `size` bytes fit beside the others."""
        limit = f"{self._max_bytes / GB:g} GB (setting max_model_cache_gb of the worker)"
        if size > self._max_bytes:
            raise ModelNotFetched(f"the model has {size / GB:.3g} GB, more than the cache of models may have: {limit}")
        entries = [entry for entry in self._entries() if entry.name != exempt]
        total = sum(entry.size for entry in entries)
        for entry in sorted(entries, key=lambda entry: entry.last_used):
            if total + size <= self._max_bytes:
                return
            if not self._is_used(entry.name):
                self._remove(entry.name)
                total -= entry.size
        if total + size > self._max_bytes:
            raise ModelNotFetched(
                f"the model of {size / GB:.3g} GB does not fit into the cache of models beside those in use: {limit}"
            )

    def _entries(self) -> Iterator[_Entry]:
        for manifest in self.path.glob("*.json"):
            try:
                size, time = int(orjson.loads(manifest.read_bytes())["size"]), manifest.stat().st_mtime
            except (OSError, ValueError, KeyError, TypeError):
                size, time = 0, 0.0
            yield _Entry(manifest.stem, size, time)

    def _is_used(self, name: str) -> bool:
        if name.endswith(_PART):
            return _is_locked(self.path / f".{name.removesuffix(_PART)}.lock")
        used = False
        for marker in self.path.glob(f"{name}.*{_MARKER}"):
            if _is_locked(marker):
                used = True
            else:
                remove_file(marker)
        return used

    def _remove(self, name: str) -> None:
        remove_file(self._manifest(name))
        shutil.rmtree(self.path / name, ignore_errors=True)

    def _manifest(self, name: str) -> Path:
        return self.path / f"{name}.json"

    def _write_manifest(self, name: str, size: int) -> None:
        write_file(self._manifest(name), orjson.dumps({"size": size}))

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        from filelock import FileLock

        make_folder(self.path)
        with FileLock(self.path / ".lock"):
            yield


def _is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a file."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(descriptor)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            return True
        return processes.is_running(path.name.split(".")[1].partition("-")[0])
    finally:
        os.close(descriptor)


def _short(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def digest_of(listing: ModelListing) -> str | None:
    """Return the name of a complete model by its content; None while a hash is missing."""
    if any(file.hash is None for file in listing.files):
        return None
    content = [listing.name, listing.is_folder, sorted((file.path, file.size, file.hash) for file in listing.files)]
    return hashlib.sha256(orjson.dumps(content)).hexdigest()[:32]


def part_path(folder: Path, listing: ModelListing, file: ServedFile) -> Path:
    """Return where a version of a file is while its model is incomplete."""
    path = final_path(folder, listing, file)
    return path.with_name(f"{path.name}~{file.version}")


def final_path(folder: Path, listing: ModelListing, file: ServedFile) -> Path:
    """Return where a file is in the folder of its complete model."""
    return folder / listing.name / file.path if listing.is_folder else folder / listing.name


def _arrange(folder: Path, listing: ModelListing) -> None:
    """Give the files of a complete model their names, and remove what earlier attempts left."""
    finals = {final_path(folder, listing, file) for file in listing.files}
    for file in listing.files:
        part_path(folder, listing, file).replace(final_path(folder, listing, file))
    for path in folder.rglob("*"):
        if path.is_file() and path not in finals:
            remove_file(path)
