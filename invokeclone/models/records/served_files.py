"""The files of registered models, for workers on other machines: listed with sizes and hashes, and opened by listed name.

Only files of a record are served: the model's file, or the regular files in its folder. A link in the folder may lead to
another file of it, or to the blobs of the Hugging Face cache that the folder is in; a model with another link is refused.

Hashes are computed once, while workers already download, and stored beside the database until size or time of a file
change.
"""

import asyncio
import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel

from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import Conflict, FailedDependency, NotFound
from invokeclone.kit.files.storage import remove_file, write_file
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources
from invokeclone.models.files.hashing import hash_file
from invokeclone.models.records import store
from invokeclone.models.records.placement import to_absolute_path

FOLDER = "model_hashes"
MAX_FILES = 10_000
HASHING_S = 10.0
"""Seconds that a list waits for hashes; later it has files without a hash yet."""

_log = log.get("models.served_files")
_Hashes = dict[str, list[Any]]
"""Size, time and hash by relative path."""


class ServedFile(BaseModel, frozen=True):
    """A file of a model: its path relative to the folder (for a single file its name), and its version and hash."""

    path: str
    size: int
    version: str
    """Changes when the file does."""
    hash: str | None = None
    """None while it is being computed."""


class ModelListing(BaseModel, frozen=True):
    """The files of a model."""

    key: str
    name: str
    """Name of the file or folder."""
    is_folder: bool
    files: list[ServedFile]


class ServedFileMissing(NotFound):
    """The model has no such file, or its files are missing."""


class ServedFileChanged(FailedDependency):
    """The file has changed since it was listed."""


class FilesNotServed(Conflict):
    """The files of a model cannot be sent to another machine."""


class ServedModels:
    """The files of all registered models."""

    def __init__(self, resources: Resources) -> None:
        """Use records and settings of `resources`."""
        self._resources = resources
        self._hashing: dict[str, asyncio.Task[_Hashes]] = {}
        self._closing = threading.Event()

    async def close(self) -> None:
        """Stop computing hashes."""
        self._closing.set()
        await asyncio.gather(*self._hashing.values(), return_exceptions=True)

    async def listing(self, key: str, wait_s: float = HASHING_S) -> ModelListing:
        """Return the files of a model.

        Raises UnknownModelException, ServedFileMissing, FilesNotServed.
        """
        root = await self._root(key)
        listing = await in_thread(_list, key, root)
        hashes = await in_thread(self._read_hashes, key)
        if any(_hash_of(file, hashes) is None for file in listing.files):
            hashes = await self._hash(key, root, listing, hashes, wait_s)
        files = [file.model_copy(update={"hash": _hash_of(file, hashes)}) for file in listing.files]
        return listing.model_copy(update={"files": files})

    async def path(self, key: str, name: str, version: str | None = None) -> Path:
        """Return the path of a listed file. Raises as `listing` does, and ServedFileChanged for another version."""
        root = await self._root(key)
        listing = await in_thread(_list, key, root)
        file = next((file for file in listing.files if file.path == name), None)
        if file is None:
            raise ServedFileMissing(f"the model {key} has no file {name!r}")
        if version is not None and file.version != version:
            raise ServedFileChanged(f"{name} has changed since it was listed")
        return root / name if listing.is_folder else root

    async def _root(self, key: str) -> Path:
        config = await store.get(self._resources.database, key)
        return to_absolute_path(self._resources.settings.models_path, config.path).absolute()

    async def _hash(self, key: str, root: Path, listing: ModelListing, hashes: _Hashes, wait_s: float) -> _Hashes:
        """Return the hashes that are known within `wait_s` seconds; the others are computed in the background."""
        task = self._hashing.get(key)
        if task is None or (task.done() and task.exception() is None):
            task = asyncio.create_task(self._compute_and_clean(key, root, listing, dict(hashes)), name=f"hash {key}")
            self._hashing[key] = task
        await asyncio.wait([task], timeout=wait_s)
        if not task.done():
            return hashes
        self._hashing.pop(key, None)
        return task.result()

    async def _compute_and_clean(self, key: str, root: Path, listing: ModelListing, hashes: _Hashes) -> _Hashes:
        """Hash the files whose hash is not known, and remove the stored hashes of models without a record."""
        hashes = await in_thread(self._compute, key, root, listing, hashes)
        async with self._resources.database.read() as connection:
            keys = await store.paths(connection)
        await in_thread(_remove_others, self._resources.settings, set(keys))
        return hashes

    def _compute(self, key: str, root: Path, listing: ModelListing, hashes: _Hashes) -> _Hashes:
        """Hash the files whose hash is not known, and store all. Blocks."""
        for file in listing.files:
            if _hash_of(file, hashes) is None:
                digest = hash_file(root / file.path if listing.is_folder else root, self._closing.is_set)
                hashes[file.path] = [file.size, file.version, digest]
        listed = {file.path for file in listing.files}
        hashes = {path: entry for path, entry in hashes.items() if path in listed}
        try:
            write_file(_hashes_path(self._resources.settings, key), orjson.dumps(hashes))
        except OSError as error:
            _log.warning("the hashes of model %s are not stored: %s", key, error)
        return hashes

    def _read_hashes(self, key: str) -> _Hashes:
        with contextlib.suppress(OSError, ValueError):
            content = orjson.loads(_hashes_path(self._resources.settings, key).read_bytes())
            if isinstance(content, dict):
                return content
        return {}


def _remove_others(settings: Settings, keys: set[str]) -> None:
    paths = {_hashes_path(settings, key) for key in keys}
    for path in (settings.database_path.parent / FOLDER).glob("*.json"):
        if path not in paths:
            remove_file(path)


def _hashes_path(settings: Settings, key: str) -> Path:
    name = hashlib.sha256(key.encode()).hexdigest()[:32]  # a key may be any text
    return settings.database_path.parent / FOLDER / f"{name}.json"


def _hash_of(file: ServedFile, hashes: _Hashes) -> str | None:
    entry = hashes.get(file.path)
    if not isinstance(entry, list) or entry[:2] != [file.size, file.version]:
        return None
    return str(entry[2])


def _list(key: str, root: Path) -> ModelListing:
    """Return the files of a model, without hashes. Blocks. Raises ServedFileMissing, FilesNotServed."""
    if root.is_file():
        return ModelListing(key=key, name=root.name, is_folder=False, files=[_file_of(root, root.name)])
    if not root.is_dir():
        raise ServedFileMissing(f"the files of the model {key} are missing: install it again")
    files = [_file_of(path, path.relative_to(root).as_posix()) for path in _walk(key, root)]
    return ModelListing(key=key, name=root.name, is_folder=True, files=sorted(files, key=lambda file: file.path))


def _file_of(path: Path, name: str) -> ServedFile:
    status = path.stat()
    return ServedFile(path=name, size=status.st_size, version=f"{status.st_mtime_ns:x}")


def _walk(key: str, root: Path) -> Iterator[Path]:
    """Yield the regular files of a model's folder, except hidden ones and those in hidden folders."""
    real_root, count = Path(os.path.realpath(root)), 0
    for parent, folders, names in os.walk(root):
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in (*linked, *names):
            path = Path(parent, name)
            if name.startswith("."):
                continue
            if path.is_symlink():
                _check_link(key, path, real_root)
            if not path.is_file():
                continue
            count += 1
            if count > MAX_FILES:
                raise FilesNotServed(f"the folder of the model {key} has more than {MAX_FILES} files")
            yield path


def _check_link(key: str, path: Path, real_root: Path) -> None:
    """Raise FilesNotServed for a link to a folder, or out of the model's folder."""
    target = Path(os.path.realpath(path))
    allowed = [real_root]
    if real_root.parent.name == "snapshots":  # of the Hugging Face cache: MODEL/snapshots/REVISION, MODEL/blobs
        allowed.append(real_root.parent.parent / "blobs")
    if target.is_dir() or not any(target.is_relative_to(folder) for folder in allowed):
        raise FilesNotServed(
            f"the model {key} cannot be sent to other machines, because {path.name} is a link out of its folder: "
            "replace the link by the file, or share the models folder (setting shared_models_dir of the workers)"
        )
