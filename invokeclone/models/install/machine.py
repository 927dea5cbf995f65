"""Processing of install jobs, one task per job: plan, download, register.

`states` has the table of transitions. Changes of rows and folders run in the background, in order, and are retried at
`stop` if they failed.
"""

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

from invokeclone.downloads.queue import DownloadQueue
from invokeclone.downloads.schemas import DownloadJob, DownloadJobStatus
from invokeclone.downloads.web import without_query
from invokeclone.graph.vocabulary.taxonomy import ModelSourceType
from invokeclone.kit import log
from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.process.offload import run_to_completion, wait_until_done
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.errors import InstallCancelled, InvalidModel, RefusedModel
from invokeclone.models.install import folders, journal, states
from invokeclone.models.install.installation import Installation
from invokeclone.models.install.jobs import (
    ExternalModelSource,
    InstallStatus,
    LocalModelSource,
    UnsupportedSource,
)
from invokeclone.models.install.plans import RemoteSource, make_plan
from invokeclone.models.install.registration import RegistrationRequest, is_key, register, register_external
from invokeclone.models.install.sources.hub import Hub
from invokeclone.models.install.sources.metadata import HuggingFaceMetadata
from invokeclone.models.install.states import (
    CANCELLED,
    COMPLETED,
    DOWNLOADING,
    DOWNLOADS_DONE,
    ERROR,
    RUNNING,
    UNDER_WAY,
    WAITING,
)
from invokeclone.models.records import placement
from invokeclone.models.records.guard import Guard

_log = log.get("models")


class InstallMachine:
    """Processes install jobs: performs their transitions, and registers one model at a time."""

    def __init__(self, resources: Resources, downloads: DownloadQueue, hub: Hub, guard: Guard) -> None:
        """Create a machine that registers nothing before `ready` is set."""
        self.ready = asyncio.Event()
        self.stopping = False
        self._resources = resources
        self._downloads = downloads
        self._hub = hub
        self._guard = guard
        self._registration_lock = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        self._pending_removals: set[Installation] = set()

    def change_state(self, job: Installation, to: InstallStatus | None, **fields: Any) -> None:
        """Perform a transition; row and folder are changed in the background. Raises TransitionRefused."""
        transition = states.apply(job, to, self._resources.events, fields)
        if to not in states.WORKING:
            job.interrupt()
        if transition.folder is states.FolderChange.REMOVED:
            self._pending_removals.add(job)
            self._in_background(job, self._remove(job))
        elif transition.row is states.RowChange.SAVED:
            self._in_background(job, self._save_or_log(job))

    async def save(self, job: Installation) -> None:
        """Write the job's row if it differs from the job's state."""
        async with job.lock:
            entry = job.entry()
            if entry == job.saved_entry:
                return
            async with self._resources.database.write() as connection:
                if entry is None:
                    await journal.remove(connection, job.folder.name)
                else:
                    await journal.save(connection, entry)
            job.saved_entry = entry

    def start(self, job: Installation) -> None:
        """Start or resume processing a job."""
        if job.batch.parts:
            job.batch.resume()
            self._check_downloads(job)  # the last part may have been completed just when it was paused
        if job.task is None and job.state in states.WORKING:
            with log.fields(**job.job.log_fields):
                job.task = asyncio.create_task(self._run(job, job.last_task), name=f"install {job.job.id}")

    async def stop(self, jobs: list[Installation]) -> None:
        """Stop processing `jobs`: file moves are completed, downloads are kept for the next start."""
        self.stopping = True
        for job in jobs:
            if job.state is not RUNNING:
                job.interrupt()
        if tasks := [task for job in jobs for task in (job.task, job.last_task) if task is not None]:
            await asyncio.wait(tasks)
        await self.wait_for_background()
        for job in jobs:
            await self._save_or_log(job)
        for job in list(self._pending_removals):
            await self._remove(job)

    async def wait_for_background(self) -> None:
        """Wait until all background tasks have ended."""
        while self._background:
            await asyncio.wait(self._background)

    async def restart(self, job: Installation, part: DownloadJob) -> None:
        """Download one part again. If that cannot be started, the job fails and the error is raised."""
        if job.state is not WAITING:
            self.change_state(job, WAITING)
        try:
            await job.batch.restart(part)
        except Exception as error:
            if job.state in UNDER_WAY:
                self._fail(job, type(error).__name__, str(error), None)
                job.batch.pause()
            raise
        if job.state in UNDER_WAY:
            self.start(job)
        elif job.state is states.PAUSED:
            job.batch.pause()

    def watch(self, job: Installation, part: DownloadJob) -> None:
        """Handle a change of one download of a job; called on the event loop, does not block."""
        if job.state not in UNDER_WAY or self.stopping:
            return
        job.update_bytes()
        job.set_file_name(part.download_path)
        match part.status:
            case DownloadJobStatus.RUNNING:
                self._progress(job)
            case DownloadJobStatus.ERROR:
                self._fail_download(job, part)
            case DownloadJobStatus.CANCELLED:
                self.change_state(job, CANCELLED)
            case _:
                self._check_downloads(job)

    def _progress(self, job: Installation) -> None:
        if job.state is WAITING or job.progress_due():
            self.change_state(job, DOWNLOADING)

    def _check_downloads(self, job: Installation) -> None:
        """Advance a job whose downloads are complete, and fail one that has a failed but no active download."""
        if job.batch.complete:
            if job.state is WAITING:
                self.change_state(job, DOWNLOADING)
            self.change_state(job, DOWNLOADS_DONE)
        elif not job.batch.active and (part := job.batch.failed) is not None:
            self._fail_download(job, part)

    def _fail_download(self, job: Installation, part: DownloadJob) -> None:
        _log.warning("download of %s failed: %s", without_query(str(job.job.source)), part.error)
        self._fail(job, part.error_type or "DownloadFailed", part.error or "", None)
        job.batch.pause()

    def _fail(self, job: Installation, kind: str, text: str, error_traceback: str | None) -> None:
        self.change_state(job, ERROR, error_reason=kind, error=text, error_traceback=error_traceback)

    async def _run(self, job: Installation, previous_task: "asyncio.Task[None] | None") -> None:
        """Process a job from its current state to its end; failures become the job's error."""
        if previous_task is not None:
            await wait_until_done(previous_task)
        if job.state in UNDER_WAY and (source := job.remote) is not None:
            await self._download(job, source)
        if job.state not in {WAITING, DOWNLOADS_DONE}:
            return
        await self.ready.wait()
        async with self._registration_lock:
            if not self.stopping:
                await self._register(job)

    async def _download(self, job: Installation, source: RemoteSource) -> None:
        """Plan the downloads unless that is done, and wait for them; the job is then DOWNLOADS_DONE or has ended."""
        try:
            if not job.batch.parts:
                await self._plan(job, source)
        except Exception as error:  # noqa: BLE001  (becomes the job's error)
            if job.state not in UNDER_WAY:
                return
            expected = isinstance(error, InvokeCloneError | OSError)
            error_traceback = None if expected else "".join(traceback.format_exception(error))
            _log.warning("download of %s failed: %s", without_query(str(source)), error_traceback or error)
            self._fail(job, type(error).__name__, str(error), error_traceback)
            return
        await job.batch.wait()

    async def _plan(self, job: Installation, source: RemoteSource) -> None:
        await run_to_completion(self._prepare_folder, job, source)
        job.recovered = False
        plan = job.plan = job.plan or await make_plan(source, self._hub, self._resources.settings)
        if job.earlier_plan is not None:
            await run_to_completion(folders.remove_changed, job.folder, job.earlier_plan, plan)
            job.earlier_plan = None
        self.change_state(job, WAITING, source_metadata=plan.metadata, local_path=job.folder / (plan.root or ""))
        await self.save(job)
        await job.batch.add(plan, job.folder, source.access_token)
        job.job.download_parts = job.batch.parts
        job.update_bytes()
        job.batch.resume()
        self._check_downloads(job)

    def _prepare_folder(self, job: Installation, source: RemoteSource) -> None:
        if job.recovered and job.plan is not None and is_key(job.key):
            folders.restore_downloads(self._resources.settings.models_path, job.key, job.folder, job.plan)
        folders.create(job.folder, source.access_token)

    async def _register(self, job: Installation) -> None:
        self.change_state(job, RUNNING)
        try:
            await self.save(job)  # the recovery of moved downloads after a crash needs the row
            config = await self._register_files(job)
        except InstallCancelled:
            # Downloaded files are registered at the next start.
            self.change_state(job, DOWNLOADS_DONE if self.stopping and job.remote else CANCELLED)
        except Exception as error:  # noqa: BLE001  (a failure of one job must not stop the others)
            unexpected = not isinstance(error, InvokeCloneError | OSError)
            source = without_query(str(job.job.source))
            _log.warning("installing %s failed: %s", source, error, exc_info=error if unexpected else None)
            if job.remote and isinstance(error, InvalidModel) and not isinstance(error, RefusedModel):
                await self._drop_downloads(job)
            self._fail(job, type(error).__name__, str(error), "".join(traceback.format_exception(error)))
        else:
            _log.info("installed %s model %s (%s)", config.base, config.name, config.key, extra={"key": config.key})
            size = config.file_size
            path = placement.to_absolute_path(self._resources.settings.models_path, config.path)
            self.change_state(job, COMPLETED, config_out=config, bytes=size, total_bytes=size, local_path=path)

    async def _drop_downloads(self, job: Installation) -> None:
        """Remove downloaded files that are no model, so that another attempt downloads them again."""
        try:
            await job.batch.reset()
            await run_to_completion(folders.remove_downloads, job.folder)
        except OSError as error:
            _log.warning("the downloads in %s cannot be removed: %s", job.folder, error)
        job.plan, job.job.local_path = None, job.folder

    async def _register_files(self, job: Installation) -> ModelConfig:
        """Register the files of a job and return the record."""
        client_job = job.job
        overrides = client_job.config_in.explicit_fields()
        if isinstance(client_job.source, ExternalModelSource):
            return await register_external(self._resources, self._guard, client_job.source, overrides)
        if not (job.remote or isinstance(client_job.source, LocalModelSource)):
            raise UnsupportedSource(f"{client_job.source} has no files to install")
        if job.plan is not None:
            await run_to_completion(folders.remove_strays, job.folder, job.plan)
        if isinstance(client_job.source_metadata, HuggingFaceMetadata):
            overrides.setdefault("source_api_response", client_job.source_metadata.api_response)
        request = RegistrationRequest(
            path=client_job.local_path,
            source=str(client_job.config_in.source),
            source_type=client_job.config_in.source_type or ModelSourceType.Path,
            overrides=overrides | {"key": job.key},
            files=job.file_handling,
            is_cancelled=lambda: self.stopping or job.cancel_requested,
            on_copy=self._copy_watch(job),
        )
        return await register(self._resources, self._guard, request)

    def _copy_watch(self, job: Installation) -> Callable[[int, int], None]:
        """Return a function that reports the progress of a copy from a thread."""
        loop = asyncio.get_running_loop()

        def update(copied: int, total: int) -> None:
            if job.state is RUNNING and job.progress_due():
                self.change_state(job, RUNNING, bytes=copied, total_bytes=total)

        def report(copied: int, total: int) -> None:
            loop.call_soon_threadsafe(update, copied, total)

        job.progress_due()  # a copy that takes no time is not reported
        return report

    async def _save_or_log(self, job: Installation) -> None:
        try:
            await self.save(job)
        except Exception as error:  # noqa: BLE001  (the row is written with the next transition or at `stop`)
            _log.warning("the state of install job %s cannot be saved: %s", job.job.id, error)

    async def _remove(self, job: Installation) -> None:
        """Remove the row and folder of a job that no longer needs them."""
        try:
            if job.last_task is not None:
                await asyncio.wait([job.last_task])
            await job.batch.cancel()
            await self.save(job)
            async with job.lock:
                await run_to_completion(folders.erase, job.folder)
        except Exception as error:  # noqa: BLE001  (retried at `stop`, and folders without a row at the next start)
            _log.warning("the row or folder of install job %s cannot be removed: %s", job.job.id, error)
        else:
            self._pending_removals.discard(job)

    def _in_background(self, job: Installation, work: Coroutine[Any, Any, None]) -> None:
        with log.fields(**job.job.log_fields):
            task = asyncio.create_task(work, name=f"install {job.job.id}: row and folder")
        self._background.add(task)
        task.add_done_callback(self._background.discard)
