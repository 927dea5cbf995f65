"""The downloads of one plan as a group: add, pause, resume, wait, cancel."""

import asyncio
import contextlib
from pathlib import Path

from invokeclone.downloads.partial_file import check_space
from invokeclone.downloads.queue import DownloadQueue, DownloadRequest, Watcher
from invokeclone.downloads.schemas import DownloadJob, DownloadJobStatus
from invokeclone.kit.errors import NotFound
from invokeclone.kit.process.offload import in_thread
from invokeclone.models.install.plans import DownloadPlan
from invokeclone.models.install.sources.hub import Hub
from invokeclone.models.install.sources.metadata import RemoteModelFile

_ACTIVE = {DownloadJobStatus.WAITING, DownloadJobStatus.RUNNING}


class DownloadBatch:
    """The downloads of one plan. `parts` is empty until `add`."""

    def __init__(self, downloads: DownloadQueue, hub: Hub, watch: Watcher) -> None:
        """Use the queue `downloads`; `watch` is called on the event loop at every change of a part. It must not block."""
        self.parts: list[DownloadJob] = []
        self._downloads = downloads
        self._hub = hub
        self._watch = watch
        self._end_event = asyncio.Event()

    async def add(self, plan: DownloadPlan, folder: Path, token: str | None) -> None:
        """Add a paused download into `folder` for every file of `plan`; existing files are marked as completed.

        Raises DiskFull if there is not enough space for all files. Adds none when cancelled or failed.
        """
        existing_sizes = await in_thread(_sizes, folder, plan.files)
        await in_thread(check_space, folder, plan.size - sum(existing_sizes.values()))
        requests = []
        for file in plan.files:
            url, target = str(file.url), folder / file.path
            access_token = token or self._downloads.web.token_for(url) or await self._hub.token_for(url)
            file_path = target if file.path != Path() else None
            requests.append(
                DownloadRequest(file.url, target, access_token, sha256=file.sha256, size=file.size, file=file_path)
            )
        self.parts = [self._downloads.add(request, self._on_change, paused=True) for request in requests]
        for part, file in zip(self.parts, plan.files, strict=True):
            if file.path in existing_sizes:
                self._downloads.mark_complete(part.id, existing_sizes[file.path])

    @property
    def complete(self) -> bool:
        """Whether every part is completed."""
        return {part.status for part in self.parts} == {DownloadJobStatus.COMPLETED}

    @property
    def active(self) -> bool:
        """Whether any part waits or runs."""
        return any(part.status in _ACTIVE for part in self.parts)

    @property
    def failed(self) -> DownloadJob | None:
        """The first failed part, or None."""
        return next((part for part in self.parts if part.status is DownloadJobStatus.ERROR), None)

    @property
    def has_ended(self) -> bool:
        """Whether every part has ended, or one has failed."""
        return self.failed is not None or all(part.ended for part in self.parts)

    def resume(self) -> None:
        """Resume every part that is paused or has failed."""
        self._end_event.clear()
        for part in self.parts:
            self._downloads.resume(part.id)

    def pause(self) -> None:
        """Pause every part that waits or runs, keeping partial files."""
        for part in self.parts:
            self._downloads.pause(part.id)

    async def restart(self, part: DownloadJob) -> None:
        """Download one part again from the beginning."""
        self._end_event.clear()
        await self._downloads.restart(part.id)

    async def wait(self) -> None:
        """Wait until the batch has ended."""
        while not self.has_ended:
            self._end_event.clear()
            await self._end_event.wait()

    async def cancel(self) -> None:
        """Cancel the parts that have not ended, and wait until no download uses its file."""
        if not self.parts:
            return
        numbers = [part.id for part in self.parts]
        for number in numbers:
            with contextlib.suppress(NotFound):  # the jobs were pruned in the meantime
                self._downloads.cancel(number)
        await self._downloads.wait_until_stopped(numbers)

    def forget(self) -> None:
        """Remove the parts, none of which may be active, from the queue; their files stay."""
        self._downloads.forget(part.id for part in self.parts)

    async def reset(self) -> None:
        """Forget the parts once no download uses its file, so that a new plan can be added."""
        await self._downloads.wait_until_stopped([part.id for part in self.parts])
        self.forget()
        self.parts = []

    def _on_change(self, part: DownloadJob) -> None:
        self._watch(part)
        if self.has_ended:
            self._end_event.set()


def _sizes(folder: Path, files: list[RemoteModelFile]) -> dict[Path, int]:
    """Return the sizes of the existing files; a file gets its name only once it is complete."""
    paths = {file.path: folder / file.path for file in files if file.path != Path()}
    return {name: path.stat().st_size for name, path in paths.items() if path.is_file()}
