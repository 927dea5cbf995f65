"""The download cache: what nodes fetch by address or repository, once for all workers, without a record.

A model lies alone in a folder named after its source; it is fetched beside that and gets its name when it is whole.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from invokeclone.downloads.errors import DownloadFailed
from invokeclone.downloads.queue import DownloadQueue
from invokeclone.downloads.schemas import DownloadJob, DownloadJobStatus
from invokeclone.downloads.transfer import finished, pace
from invokeclone.kit import paths
from invokeclone.kit.resources import Resources
from invokeclone.models.install.fetching import add_parts
from invokeclone.models.install.hub import Hub
from invokeclone.models.install.jobs import parse_remote
from invokeclone.models.install.plans import RemoteSource, make_plan

ASK_AGAIN_S = 0.2
"""How often to look whether another process is done with the same model."""
PROGRESS_S = 0.5

Progress = Callable[[float | None], None]
"""Told now and then how much is here, 0 to 1, or None while that isn't known."""


class DownloadCache:
    """The cache in the settings' folder; any number of processes may use it at once."""

    def __init__(self, resources: Resources) -> None:
        """Fetch as the settings of `resources` say, telling its events."""
        self._resources = resources

    async def fetch(self, text: str, progress: Progress = lambda _: None) -> Path:
        """Return the file or folder of the model that `text` names (an address or a repository), fetched if need be.

        When cancelled, what is here already is gone on with the next time. Raises UnsupportedSource, DownloadFailed and
        its kinds, AddressRefused, OSError.
        """
        source = parse_remote(text)
        cache = self._resources.settings.download_cache_path
        name = hashlib.sha256(str(source).encode()).hexdigest()[:32]
        home = cache / name
        if (found := await asyncio.to_thread(_only, home)) is not None:
            return found
        await asyncio.to_thread(cache.mkdir, parents=True, exist_ok=True)
        async with _alone(cache / f".{name}.lock"):
            if (found := await asyncio.to_thread(_only, home)) is not None:
                return found
            folder = cache / f".{name}.part"
            model = await self._fetch(source, folder, progress)
            await finished(_place, folder, model, home)
        return home / model.name

    async def _fetch(self, source: RemoteSource, folder: Path, progress: Progress) -> Path:
        settings = self._resources.settings
        downloads = DownloadQueue(settings, self._resources.events)
        hub = Hub(settings, downloads.web)
        ended = asyncio.Event()
        due = pace(PROGRESS_S)

        def watch(part: DownloadJob) -> None:
            if part.status is DownloadJobStatus.ERROR or all(one.ended for one in parts):
                ended.set()
            elif due():
                total = sum(one.total_bytes for one in parts)
                progress(sum(one.bytes for one in parts) / total if total else None)

        parts: list[DownloadJob] = []
        try:
            plan = await make_plan(source, hub, settings)
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            parts += await add_parts(plan, folder, source, downloads, hub, watch)
            for part in parts:
                downloads.resume(part.id)
            if not all(part.ended for part in parts):
                await ended.wait()
        finally:
            await downloads.stop()
        for part in parts:
            if part.status is not DownloadJobStatus.COMPLETED and part.error:
                raise DownloadFailed(part.error)
        return folder / (plan.root or Path(str(parts[0].download_path)).name)


def _only(home: Path) -> Path | None:
    """Return the model in its folder, None without any. Blocking."""
    try:
        return next(iter(sorted(entry for entry in home.iterdir() if not entry.name.startswith("."))), None)
    except FileNotFoundError:
        return None


def _place(folder: Path, model: Path, home: Path) -> None:
    """Leave nothing but the model in its folder, and give that its name. Blocking."""
    for entry in folder.iterdir():
        if entry != model:
            paths.erase(entry)
    if home.exists():  # an empty one: somebody emptied it by hand
        paths.erase(home)
    folder.rename(home)


@contextlib.asynccontextmanager
async def _alone(file: Path) -> AsyncIterator[None]:
    """Hold a lock between processes, and between tasks of this one; waiting for it can be cancelled."""
    from filelock import FileLock, Timeout

    lock = FileLock(file, thread_local=False)
    while True:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            await asyncio.sleep(ASK_AGAIN_S)
        else:
            break
    try:
        yield
    finally:
        lock.release()
