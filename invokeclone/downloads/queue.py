"""The download queue: runs downloads by priority, a few at once, and cancels, pauses, resumes and restarts them.

There is one queue per process.
"""

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import AnyHttpUrl

from invokeclone.downloads import destinations
from invokeclone.downloads.errors import DestinationTaken, UnknownDownload
from invokeclone.downloads.events import (
    DownloadCancelledEvent,
    DownloadCompleteEvent,
    DownloadErrorEvent,
    DownloadPausedEvent,
    DownloadProgressEvent,
    DownloadStartedEvent,
)
from invokeclone.downloads.partial_file import PartialFile
from invokeclone.downloads.schemas import DownloadJob, DownloadJobStatus
from invokeclone.downloads.transfer import INITIAL_RETRY_DELAY_S, Transfer, throttle
from invokeclone.downloads.web import WebClient, without_query
from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.events import Emitter
from invokeclone.kit.process.offload import in_thread, run_to_completion, wait_until_done
from invokeclone.kit.times import now

MAX_CONCURRENT = 5
PROGRESS_INTERVAL_S = 0.25
"""Minimum time between two progress events of a download."""

_log = log.get("download")

Watcher = Callable[[DownloadJob], None]
"""Callback for every change of a job; runs on the event loop and must not block."""

Reserved = Callable[[], Awaitable[Iterable[Path]]]
"""Returns the files and folders that clients may not download to."""


@dataclass
class DownloadRequest:
    """A file to download: its URL, its destination, and its checksum and size in bytes if known."""

    source: AnyHttpUrl
    dest: Path
    token: str | None = None
    priority: int = 10
    sha256: str | None = None
    size: int | None = None
    file: Path | None = None
    """Path of the file if known; otherwise `dest` is a folder and the server determines the file name."""


@dataclass
class _Entry:
    job: DownloadJob
    sha256: str | None
    watch: Watcher | None
    task: asyncio.Task[None] | None = None
    started_task: asyncio.Task[None] | None = None
    """The task once it runs. A task that has not started yet is not cancelled; it checks the job's status itself."""
    ended_complete: bool = False
    """Whether the file was completed just before the cancellation took effect."""
    start_event_emitted: bool = False
    """Whether DownloadStartedEvent was emitted."""
    pruned: bool = False
    progress_due: Callable[[], bool] = field(default_factory=lambda: throttle(PROGRESS_INTERVAL_S))


class DownloadQueue:
    """The downloads of this process.

    Methods set the status of a job immediately; its task follows.
    """

    def __init__(
        self,
        settings: Settings,
        events: Emitter,
        *,
        reserved: Reserved | None = None,
        max_concurrent: int = MAX_CONCURRENT,
        initial_retry_delay: float = INITIAL_RETRY_DELAY_S,
    ) -> None:
        """Create an empty queue.

        `reserved` returns the files and folders that clients may not use as a destination. `initial_retry_delay` is the
        delay in seconds before a failed download is retried; it doubles with each attempt.
        """
        self._settings = settings
        self._reserved = reserved
        self.web = WebClient(settings, initial_retry_delay)
        self._events = events
        self._max_concurrent = max_concurrent
        self._initial_retry_delay = initial_retry_delay
        self._entries: dict[int, _Entry] = {}
        self._waiting: list[tuple[int, int]] = []
        self._next = 0
        self._stopping = False

    async def stop(self) -> None:
        """Stop the running downloads, keeping their partial files, and close all connections."""
        self._stopping = True
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        for entry in self._entries.values():
            if entry.job.status is DownloadJobStatus.RUNNING:
                self._cancel_task(entry)
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.web.close()

    async def resolve_destination(self, text: str) -> tuple[Path, Path | None]:
        """Return the path of destination `text`, and the same path again if it names a file, else None.

        Raises DestinationRefused, DestinationTaken.
        """
        reserved = await self._reserved() if self._reserved else []
        return await in_thread(destinations.resolve_destination, self._settings, text, reserved)

    def add(self, request: DownloadRequest, watch: Watcher | None = None, *, paused: bool = False) -> DownloadJob:
        """Queue a download and return its job; with `paused`, it waits until it is resumed."""
        url = str(request.source)
        job = DownloadJob(
            id=self._next,
            source=request.source,
            dest=request.dest,
            download_path=request.file,
            priority=request.priority,
            access_token=request.token or self.web.token_for(url),
            canonical_url=url,
            expected_total_bytes=request.size,
            total_bytes=request.size or 0,
            status=DownloadJobStatus.PAUSED,
        )
        self._next += 1
        entry = self._entries[job.id] = _Entry(job, request.sha256, watch)
        if not paused:
            self._queue(entry)
        return job

    def jobs(self) -> list[DownloadJob]:
        """Return the jobs that were not pruned, oldest first."""
        return [entry.job for entry in self._entries.values() if not entry.pruned]

    def get(self, number: int) -> DownloadJob:
        """Return a job. Raises UnknownDownload."""
        entry = self._entry(number)
        if entry.pruned:
            raise UnknownDownload(f"no download {number}")
        return entry.job

    def cancel(self, number: int) -> None:
        """Cancel a job that has not ended and remove its partial file. Raises UnknownDownload."""
        entry = self._entry(number)
        if entry.job.ended:
            return
        entry.job.job_ended = now()
        self._cancel_task(entry)
        self._change(entry, DownloadJobStatus.CANCELLED)
        entry.task = asyncio.create_task(
            self._remove_files(entry, entry.task), name=f"download {entry.job.id}: removal"
        )
        self._events.emit(DownloadCancelledEvent(source=str(entry.job.source)))
        self._start_jobs()

    def cancel_all(self) -> None:
        """Cancel every job that has not ended."""
        for job in self.jobs():
            self.cancel(job.id)

    def pause(self, number: int) -> None:
        """Pause a waiting or running job, keeping its partial file. Raises UnknownDownload."""
        entry = self._entry(number)
        if entry.job.status in {DownloadJobStatus.WAITING, DownloadJobStatus.RUNNING}:
            self._cancel_task(entry)
            self._change(entry, DownloadJobStatus.PAUSED)
            self._events.emit(DownloadPausedEvent(source=str(entry.job.source)))
            self._start_jobs()

    def resume(self, number: int) -> None:
        """Queue a paused or failed job again; it continues its partial file. Raises UnknownDownload."""
        entry = self._entry(number)
        if entry.job.status in {DownloadJobStatus.PAUSED, DownloadJobStatus.ERROR}:
            self._queue(entry)

    def mark_complete(self, number: int, size: int) -> None:
        """Mark a paused job as completed because its file exists already; emits no event. Raises UnknownDownload."""
        job = self._entry(number).job
        job.status, job.bytes, job.total_bytes = DownloadJobStatus.COMPLETED, size, size

    async def restart(self, number: int) -> None:
        """Restart a job from the beginning, unless it is completed or cancelled. Raises UnknownDownload."""
        entry = self._entry(number)
        if entry.job.status in {DownloadJobStatus.COMPLETED, DownloadJobStatus.CANCELLED}:
            return
        entry.job.status = DownloadJobStatus.PAUSED
        self._cancel_task(entry)
        await self.wait_until_stopped([number])
        if entry.job.status is not DownloadJobStatus.PAUSED:
            return
        await self._drop(entry)
        entry.job.bytes = 0
        self._queue(entry)

    async def wait_until_stopped(self, numbers: Iterable[int]) -> None:
        """Wait until the tasks of cancelled or paused jobs have ended and closed their files."""
        entries = [self._entries[number] for number in numbers if number in self._entries]
        tasks = [entry.task for entry in entries if entry.task and entry.job.status is not DownloadJobStatus.RUNNING]
        if tasks:
            await asyncio.wait(tasks)

    def prune(self) -> None:
        """Hide the jobs that have ended; watched jobs are kept until `forget` removes them."""
        for number, entry in list(self._entries.items()):
            entry.pruned = entry.pruned or entry.job.ended
            if entry.pruned and entry.watch is None:
                del self._entries[number]

    def forget(self, numbers: Iterable[int]) -> None:
        """Remove jobs from the queue's records."""
        for number in numbers:
            self._entries.pop(number, None)

    def _entry(self, number: int) -> _Entry:
        if number not in self._entries:
            raise UnknownDownload(f"no download {number}")
        return self._entries[number]

    def _change(self, entry: _Entry, status: DownloadJobStatus) -> None:
        entry.job.status = status
        if entry.watch is not None:
            entry.watch(entry.job)

    def _queue(self, entry: _Entry) -> None:
        job, entry.pruned = entry.job, False
        job.error = job.error_type = job.job_ended = None
        job.status = DownloadJobStatus.WAITING
        heapq.heappush(self._waiting, (job.priority, job.id))
        self._start_jobs()

    def _start_jobs(self) -> None:
        """Start waiting jobs by priority while fewer than the maximum run."""
        running = sum(entry.job.status is DownloadJobStatus.RUNNING for entry in self._entries.values())
        while running < self._max_concurrent and self._waiting and not self._stopping:
            entry = self._entries.get(heapq.heappop(self._waiting)[1])
            if entry is not None and entry.job.status is DownloadJobStatus.WAITING:
                running += 1
                entry.job.status = DownloadJobStatus.RUNNING
                entry.job.job_started = entry.job.job_started or now()
                entry.task = asyncio.create_task(self._run_job(entry, entry.task), name=f"download {entry.job.id}")

    def _cancel_task(self, entry: _Entry) -> None:
        if entry.task is not None and entry.task is entry.started_task:
            entry.task.cancel()

    async def _run_job(self, entry: _Entry, previous_task: asyncio.Task[None] | None) -> None:
        """Download the file of one job; any exception becomes the job's error."""
        entry.started_task = task = asyncio.current_task()
        transfer = Transfer(
            self.web,
            entry.job,
            sha256=entry.sha256,
            claim=lambda path: self._claim(entry, path),
            progress=lambda: self._progress(entry),
            initial_retry_delay=self._initial_retry_delay,
        )
        try:
            if previous_task is not None:
                await wait_until_done(previous_task)
            if entry.task is task and entry.job.status is DownloadJobStatus.RUNNING and not self._stopping:
                with log.fields(action="download", download_id=entry.job.id):
                    await transfer.run()
                self._complete(entry)
            else:
                self._finish_interrupted(entry, transfer)
        except asyncio.CancelledError:
            self._finish_interrupted(entry, transfer)
        except Exception as error:  # noqa: BLE001  (a failure of one job must not stop the others)
            if entry.task is task and entry.job.status is DownloadJobStatus.RUNNING:
                self._fail(entry, error)
            else:
                self._finish_interrupted(entry, transfer)
        finally:
            if entry.task is task:
                entry.task = None
            self._start_jobs()

    def _finish_interrupted(self, entry: _Entry, transfer: Transfer) -> None:
        """Update a job whose task was interrupted; it is completed if its file is complete and it is not cancelled."""
        is_complete = transfer.partial_file is not None and transfer.partial_file.complete
        if entry.job.status is DownloadJobStatus.CANCELLED:
            entry.ended_complete = is_complete
        elif is_complete:
            self._complete(entry)
        elif self._stopping:
            entry.job.status = DownloadJobStatus.WAITING

    async def _remove_files(self, entry: _Entry, previous_task: asyncio.Task[None] | None) -> None:
        """Remove the partial or complete file of a cancelled job, once its task has ended."""
        if previous_task is not None:
            await wait_until_done(previous_task)
        if entry.ended_complete and entry.job.download_path is not None:
            await run_to_completion(entry.job.download_path.unlink, True)
        await self._drop(entry)
        if entry.task is asyncio.current_task():
            entry.task = None

    async def _drop(self, entry: _Entry) -> None:
        if entry.job.download_path is not None:
            await run_to_completion(PartialFile(entry.job.download_path).drop)

    def _claim(self, entry: _Entry, path: Path) -> None:
        """Raise DestinationTaken if another active download writes to `path`."""
        for other in (entry.job for entry in self._entries.values()):
            if other.download_path == path and other.id != entry.job.id and not other.ended:
                raise DestinationTaken(f"another download is writing {path}")

    def _progress(self, entry: _Entry) -> None:
        job = entry.job
        if job.status is not DownloadJobStatus.RUNNING:  # interrupted, and the last buffer is being written
            return
        if not entry.start_event_emitted:
            entry.start_event_emitted = True
            self._events.emit(DownloadStartedEvent(source=str(job.source), download_path=str(job.download_path)))
        elif entry.progress_due():
            self._events.emit(
                DownloadProgressEvent(
                    source=str(job.source),
                    download_path=str(job.download_path),
                    current_bytes=job.bytes,
                    total_bytes=job.total_bytes,
                )
            )
        if entry.watch is not None:
            entry.watch(job)

    def _complete(self, entry: _Entry) -> None:
        job = entry.job
        job.job_ended = now()
        self._change(entry, DownloadJobStatus.COMPLETED)
        self._events.emit(
            DownloadCompleteEvent(
                source=str(job.source), download_path=str(job.download_path), total_bytes=job.total_bytes
            )
        )

    def _fail(self, entry: _Entry, error: Exception) -> None:
        job = entry.job
        job.error_type, job.error, job.job_ended = type(error).__name__, str(error), now()
        unexpected = not isinstance(error, InvokeCloneError | OSError)
        _log.warning(
            "download of %s failed: %s",
            without_query(str(job.source)),
            error,
            exc_info=error if unexpected else None,
            extra={"action": "download", "download_id": job.id},
        )
        self._change(entry, DownloadJobStatus.ERROR)
        self._events.emit(DownloadErrorEvent(source=str(job.source), error_type=type(error).__name__, error=str(error)))
