"""The files of models on a worker of another machine: in a shared folder, or fetched from the server into a cache.

A file of a shared folder is used if it has the size of the server's. Other models are fetched file by file; a transfer
that was cut continues where it ended, also after a restart, and the files are verified by their hashes.
"""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, TypeVar
from urllib.parse import urlencode

from pydantic import ValidationError

from invokeclone.downloads.transfer import throttle
from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import FailedDependency, InvokeCloneError
from invokeclone.kit.files.file_locks import hold_lock
from invokeclone.kit.files.storage import make_folder, remove_file, safe_join
from invokeclone.kit.process.offload import in_thread
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.hashing import hash_file
from invokeclone.models.records.served_files import ModelListing, ServedFile
from invokeclone.worker.backend.cache_folder import GB, CacheFolder, Use, digest_of, part_path
from invokeclone.worker.backend.errors import ModelNotFetched, NotOnThisWorker
from invokeclone.worker.backend.local import MAX_SMALL_FILE, read_small_file
from invokeclone.worker.backend.protocol import Progress
from invokeclone.worker.backend.transfers import BinaryTransport

MODEL_FILES = "/api/v1/workers/model_files"
MODEL_FILE = "/api/v1/workers/model_file"
ATTEMPTS = 3
"""Attempts to get the files of one version with the listed hashes."""
RETRY_S = (0.2, 1.0, 3.0, 10.0, 30.0)
"""Delays before a transfer continues that was cut without having received anything."""
HASH_POLL_S = 1.0
PROGRESS_INTERVAL_S = 0.5

Result = TypeVar("Result")
_log = log.get("worker.model_cache")


class Records(Protocol):
    """Searches model records."""

    async def search_models(self, *, path: str) -> list[ModelConfig]:
        """Return the records with this path."""
        ...


class FetchedModels:
    """The models on a worker's machine."""

    def __init__(self, transport: BinaryTransport, settings: Settings) -> None:
        """Fetch with `transport` into the cache folder of `settings`, if they have no shared folder with the model."""
        self.transport = transport
        self.cache = CacheFolder(settings.model_cache_path, int(settings.max_model_cache_gb * GB))
        shared = settings.shared_models_dir
        self.shared = settings.under_root(shared) if shared else None
        self._models_path = settings.models_path
        self.warned: set[str] = set()
        """The models whose shared files differ from the server's, which has been logged."""

    def relative(self, path: Path) -> Path:
        """Return a path in this worker's models folder, which is empty, as it is in records; others unchanged."""
        return path.relative_to(self._models_path) if path.is_relative_to(self._models_path) else path

    def files(self, records: Records) -> "FetchedFiles":
        """Return access for an item, with records from `records`."""
        return FetchedFiles(self, records)


class FetchedFiles:
    """The files of models that an item uses."""

    def __init__(self, models: FetchedModels, records: Records) -> None:
        """Use `models`."""
        self._models = models
        self._records = records
        self._paths: dict[str, Path] = {}
        self._record_paths: dict[Path, str] = {}
        self._uses: list[Use] = []

    async def path(self, config: ModelConfig, progress: Progress) -> Path:
        """Return the file or folder of a record, fetched if necessary."""
        if config.key not in self._paths:
            path = await self._find(config, progress)
            self._paths[config.key] = path
            self._record_paths[path] = config.path
        return self._paths[config.key]

    async def path_of(self, path: str, progress: Progress) -> Path:
        """Return the file or folder at a path of this machine, or of a registered model or inside one."""
        if any(Path(path).is_relative_to(root) for root in self._record_paths):
            return Path(path)
        if Path(path).is_absolute() and await in_thread(Path(path).exists):  # such as in the download cache
            return Path(path)
        recorded = PurePosixPath(self._models.relative(Path(path)))
        for parent in (recorded, *recorded.parents):
            for config in await self._records.search_models(path=parent.as_posix()):
                root = await self.path(config, progress)
                return root if parent == recorded else safe_join(root, recorded.relative_to(parent).as_posix())
        raise NotOnThisWorker(
            f"{path} is on the server's machine: a worker of another machine has only the files of registered models"
        )

    async def search_by_path(self, path: Path) -> list[ModelConfig]:
        """Return the records of models at a path of this machine or of the server's."""
        relative = self._models.relative(path)
        names = {str(path), relative.as_posix(), self._record_paths.get(path, relative.as_posix())}
        return [config for name in sorted(names) for config in await self._records.search_models(path=name)]

    async def read_file(self, config: ModelConfig, name: str) -> bytes | None:
        """Return a small file of a model's folder, without fetching the others."""
        if config.key in self._paths:
            return await in_thread(read_small_file, self._paths[config.key] / name)
        data = b""
        try:
            async with self._models.transport.get(_address(config, name)) as chunks:
                async for chunk in chunks:
                    data += chunk
                    if len(data) > MAX_SMALL_FILE:
                        return None
        except InvokeCloneError:
            return None
        return data

    def close(self) -> None:
        """Let the files be removed when others need the space."""
        while self._uses:
            self._uses.pop().close()
        self._paths.clear()
        self._record_paths.clear()

    async def _find(self, config: ModelConfig, progress: Progress) -> Path:
        listing = await self._list(config)
        if (path := await in_thread(self._find_shared, config, listing)) is not None:
            return path
        use = await self._use(listing)
        if use is None:
            lock = await in_thread(self._models.cache.lock_path, config.key)
            async with hold_lock(lock):  # another worker of this machine may be fetching it
                use = await self._use(listing) or await _Fetch(self._models, config, self._list, progress).run(listing)
        self._uses.append(use)
        return use.path

    async def _use(self, listing: ModelListing) -> Use | None:
        digest = digest_of(listing)
        return await in_thread(self._models.cache.use, digest, listing.name) if digest else None

    async def _list(self, config: ModelConfig) -> ModelListing:
        """Return the files that the server has of a model. Raises ModelNotFetched."""
        address = f"{MODEL_FILES}?{urlencode({'key': config.key})}"
        try:
            content = await _repeat(lambda: self._models.transport.get_json(address))
            return check_names(ModelListing.model_validate(content))
        except (InvokeCloneError, ValidationError) as error:
            raise ModelNotFetched(f"{config.name} cannot be fetched from the server: {error}") from error

    def _find_shared(self, config: ModelConfig, listing: ModelListing) -> Path | None:
        """Return the file or folder in the shared folder if its files have the sizes of the server's. Blocks."""
        if self._models.shared is None:
            return None
        root = self._models.shared / config.path
        for file in listing.files:
            path = root / file.path if listing.is_folder else root
            if not path.is_file() or path.stat().st_size != file.size:
                self._warn(config, path)
                return None
        return root

    def _warn(self, config: ModelConfig, path: Path) -> None:
        if config.key not in self._models.warned:
            self._models.warned.add(config.key)
            state = "has another size than on the server" if path.is_file() else "is missing"
            _log.warning("%s %s, so %s is fetched from the server", path, state, config.name)


class _Fetch:
    """A transfer of one model."""

    def __init__(
        self,
        models: FetchedModels,
        config: ModelConfig,
        list_files: Callable[[ModelConfig], Awaitable[ModelListing]],
        progress: Progress,
    ) -> None:
        self._models = models
        self._config = config
        self._list = list_files
        self._progress = progress
        self._due = throttle(PROGRESS_INTERVAL_S)
        self._done = self._total = 0
        self._part = Path()

    async def run(self, listing: ModelListing) -> Use:
        """Fetch the files of a model and return its use. Raises ModelNotFetched."""
        for _ in range(ATTEMPTS):
            try:
                await self._fetch(listing)
                listing = await self._with_hashes(listing)
                digest = digest_of(listing)
                damaged = await in_thread(_remove_damaged, self._part, listing)
                if digest and not damaged:
                    return await in_thread(self._models.cache.publish, self._config.key, digest, listing)
                _log.warning("fetched again, as their content differs from the server's: %s", ", ".join(damaged))
            except FailedDependency:  # a file has changed since it was listed
                listing = await self._list(self._config)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise ModelNotFetched(
                    f"no space for {self._config.name} in {self._models.cache.path}: free some, or set max_model_cache_gb or "
                    "model_cache_dir of the worker"
                ) from error
        raise ModelNotFetched(
            f"{self._config.name} could not be fetched in {ATTEMPTS} attempts: its files change, or are damaged on the way"
        )

    async def _fetch(self, listing: ModelListing) -> None:
        self._total = sum(file.size for file in listing.files)
        self._done = 0
        self._part = await in_thread(self._models.cache.reserve, self._config.key, self._total)
        for file in listing.files:
            await self._fetch_file(listing, file)

    async def _fetch_file(self, listing: ModelListing, file: ServedFile) -> None:
        """Fetch the missing rest of a file, again and again while the connection is cut."""
        path = part_path(self._part, listing, file)
        cuts = 0
        with await in_thread(_open, path) as target:
            position = target.tell()
            if position > file.size:
                target.seek(0)
                position = target.truncate()
            self._done += position
            while position < file.size:
                before = position
                try:
                    position = await self._receive(target, file, position)
                except ConnectionError as error:
                    position = target.tell()
                    cuts = 0 if position > before else cuts + 1
                    if cuts > len(RETRY_S):
                        raise ModelNotFetched(f"the connection to the server was cut: {error}") from error
                    await asyncio.sleep(RETRY_S[max(cuts - 1, 0)])
                self._report()

    async def _receive(self, target: BinaryIO, file: ServedFile, position: int) -> int:
        """Append the content of a file from `position` on, and return the position after it."""
        address = _address(self._config, file.path, file.version)
        async with self._models.transport.get(address, position) as chunks:
            async for chunk in chunks:
                await in_thread(target.write, chunk)
                position += len(chunk)
                self._done += len(chunk)
                self._report()
                if position > file.size:
                    raise FailedDependency(f"{file.path} is longer than listed")
        if position < file.size:
            raise ConnectionError(f"{file.path} ended early")
        return position

    def _report(self) -> None:
        if self._due():
            share = min(self._done / self._total, 1.0) if self._total else None
            self._progress(f"Fetching model {self._config.name}", share)

    async def _with_hashes(self, listing: ModelListing) -> ModelListing:
        """Return the listing with hashes, once the server has computed them. Raises FailedDependency if files changed."""
        versions = [(file.path, file.version) for file in listing.files]
        while digest_of(listing) is None:
            self._progress(f"Verifying model {self._config.name}", None)
            listing = await self._list(self._config)
            if [(file.path, file.version) for file in listing.files] != versions:
                raise FailedDependency("the files have changed since they were listed")
            if digest_of(listing) is None:
                await asyncio.sleep(HASH_POLL_S)
        return listing


def check_names(listing: ModelListing) -> ModelListing:
    """Return a listing whose files are inside the model's folder. Raises ModelNotFetched."""
    names = [listing.name, *(file.path for file in listing.files)]
    if "/" in listing.name or not all(map(_is_relative_file, names)):
        raise ModelNotFetched("the server listed a file outside the model's folder")
    return listing


def _is_relative_file(name: str) -> bool:
    return not {"", ".", ".."} & set(name.split("/"))


def _address(config: ModelConfig, name: str, version: str | None = None) -> str:
    query = {"key": config.key, "path": name} | ({"version": version} if version else {})
    return f"{MODEL_FILE}?{urlencode(query)}"


def _open(path: Path) -> BinaryIO:
    make_folder(path.parent)
    return path.open("ab", buffering=0)


def _remove_damaged(folder: Path, listing: ModelListing) -> list[str]:
    """Remove the files whose content has another hash, and return their names. Blocks."""
    damaged = []
    for file in listing.files:
        path = part_path(folder, listing, file)
        if hash_file(path) != file.hash:
            remove_file(path)
            damaged.append(file.path)
    return damaged


async def _repeat(request: Callable[[], Awaitable[Result]]) -> Result:
    for delay in RETRY_S:
        try:
            return await request()
        except ConnectionError:
            await asyncio.sleep(delay)
    return await request()
