"""The download cache: models that nodes download by URL or repository, shared by all workers, without a record.

Each model is in a folder of its own named after the hash of its source; it is downloaded to a temporary folder, which
is renamed once complete.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from invokeclone.downloads.errors import DownloadFailed
from invokeclone.downloads.queue import DownloadQueue
from invokeclone.downloads.schemas import DownloadJob, DownloadJobStatus
from invokeclone.downloads.transfer import throttle
from invokeclone.kit.files import paths
from invokeclone.kit.files.file_locks import hold_lock
from invokeclone.kit.process.offload import in_thread, run_to_completion
from invokeclone.kit.resources import Resources
from invokeclone.models.install import folders
from invokeclone.models.install.batch import DownloadBatch
from invokeclone.models.install.jobs import parse_remote
from invokeclone.models.install.plans import RemoteSource, make_plan
from invokeclone.models.install.sources.hub import Hub

PROGRESS_INTERVAL_S = 0.5

Progress = Callable[[float | None], None]
"""Callback with the downloaded fraction from 0 to 1, or None while the size is unknown."""


class DownloadCache:
    """The cache in the folder given by the settings; any number of processes may use it at once."""

    def __init__(self, resources: Resources) -> None:
        """Use the settings of `resources`, and emit events of downloads to it."""
        self._resources = resources

    async def fetch(self, text: str, progress: Progress = lambda _: None) -> Path:
        """Return the file or folder of the model with the URL or repository `text`, downloading it if necessary.

        After a cancellation, the next call resumes the download. Raises UnsupportedSource, DownloadFailed and its
        subclasses, AddressRefused, OSError.
        """
        source = parse_remote(text)
        cache = self._resources.settings.download_cache_path
        name = hashlib.sha256(str(source).encode()).hexdigest()[:32]
        target = cache / name
        if (model := await in_thread(_find_model, target)) is not None:
            return model
        await in_thread(cache.mkdir, parents=True, exist_ok=True)
        async with hold_lock(cache / f".{name}.lock"):
            if (model := await in_thread(_find_model, target)) is not None:
                return model
            folder = cache / f".{name}.part"
            model = await self._fetch(source, folder, progress)
            await run_to_completion(_finalize, folder, model, target)
        return target / model.name

    async def _fetch(self, source: RemoteSource, folder: Path, progress: Progress) -> Path:
        settings = self._resources.settings
        downloads = DownloadQueue(settings, self._resources.events)
        hub = Hub(settings, downloads.web)
        due = throttle(PROGRESS_INTERVAL_S)

        def watch(_part: DownloadJob) -> None:
            if due():
                total = sum(part.total_bytes for part in batch.parts)
                progress(sum(part.bytes for part in batch.parts) / total if total else None)

        batch = DownloadBatch(downloads, hub, watch)
        try:
            plan = await make_plan(source, hub, settings)
            await in_thread(folder.mkdir, parents=True, exist_ok=True)
            await batch.add(plan, folder, source.access_token)
            batch.resume()
            await batch.wait()
        finally:
            await downloads.stop()
        for part in batch.parts:
            if part.status is not DownloadJobStatus.COMPLETED and part.error:
                raise DownloadFailed(part.error)
        await run_to_completion(folders.remove_strays, folder, plan)
        return folder / (plan.root or Path(str(batch.parts[0].download_path)).name)


def _find_model(target: Path) -> Path | None:
    """Return the model in its folder, or None. Blocking."""
    try:
        return next(iter(sorted(entry for entry in target.iterdir() if not entry.name.startswith("."))), None)
    except FileNotFoundError:
        return None


def _finalize(folder: Path, model: Path, target: Path) -> None:
    """Remove everything but the model from `folder`, and rename the folder to `target`. Blocking."""
    for entry in folder.iterdir():
        if entry != model:
            paths.erase(entry)
    if target.exists():  # an empty folder, for example emptied by hand
        paths.erase(target)
    folder.rename(target)
