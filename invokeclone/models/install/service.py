"""Installations: jobs kept in memory, the downloads they begin with, and the one task that registers one after the other."""

import asyncio
import json
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from invokeclone.downloads.queue import Downloads
from invokeclone.downloads.web import shown
from invokeclone.graph.taxonomy import ModelSourceType
from invokeclone.kit import log
from invokeclone.kit.errors import InvokeCloneError, NotFound, UnsupportedMedia
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import ModelConfig, new_key
from invokeclone.models.errors import InstallCancelled
from invokeclone.models.install import fetching, journal
from invokeclone.models.install.events import (
    ModelInstallCancelledEvent,
    ModelInstallCompleteEvent,
    ModelInstallErrorEvent,
    ModelInstallStartedEvent,
)
from invokeclone.models.install.fetching import Failure, Fetch, Outcomes
from invokeclone.models.install.hub import Hub
from invokeclone.models.install.jobs import (
    SOURCE_TYPES,
    ExternalModelSource,
    HFModelSource,
    InstallStatus,
    LocalModelSource,
    ModelInstallJob,
    ModelSource,
    UnsupportedSource,
    URLModelSource,
    parse_source,
)
from invokeclone.models.install.metadata import HuggingFaceMetadata
from invokeclone.models.install.plans import Plan
from invokeclone.models.install.registration import Request, register, register_external
from invokeclone.models.records import placement, store
from invokeclone.models.records.changes import missing
from invokeclone.models.records.guard import Guard
from invokeclone.models.records.schemas import ModelRecordChanges

_log = log.get("models")
_SOURCE = TypeAdapter[HFModelSource | URLModelSource](HFModelSource | URLModelSource)


class UnknownInstall(NotFound):
    """There is no install job with this number (any more)."""


class NoInstallToChange(UnsupportedMedia):
    """The same, as it is answered to whoever wants to change the job."""


class Installer:
    """Installs models: fetches several at once, registers one after the other. `start` and `stop` belong to its life."""

    def __init__(self, resources: Resources, downloads: Downloads | None = None, *, lasting: bool = False) -> None:
        """Make an installer that does nothing yet.

        `lasting`: it goes on at its start with what an earlier one left, and leaves what isn't done to the next one.
        """
        self.guard = Guard()
        self.downloads = downloads or Downloads(resources.settings, resources.events)
        self.hub = Hub(resources.settings, self.downloads.web)
        self._own_downloads = downloads is None
        self._lasting = lasting
        self._resources = resources
        self._jobs: dict[int, ModelInstallJob] = {}
        self._fetches: dict[int, Fetch] = {}
        self._waiting: asyncio.Queue[ModelInstallJob | None] = asyncio.Queue()
        self._cancelled: set[int] = set()
        self._next = 0
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._aside: set[asyncio.Task[None]] = set()
        self._outcomes = Outcomes(self._fetched, self._fetch_failed, self._fetch_cancelled, self._planned)

    async def start(self) -> None:
        """Begin to work off jobs on the running event loop."""
        if self._lasting:
            await self._recover()
        self._task = asyncio.create_task(self._work(), name="installer")

    async def stop(self) -> None:
        """Finish: a job that still reads files is cancelled, one that moves them is completed first, downloads break off."""
        self._stopping = True
        self._waiting.put_nowait(None)
        if self._task is not None:
            await self._task
        for fetch in self._fetches.values():
            await fetch.stop()
        while self._aside:
            await asyncio.wait(self._aside)
        if self._own_downloads:
            await self.downloads.stop()

    async def add(
        self, text: str, stated: ModelRecordChanges, *, inplace: bool = False, access_token: str | None = None
    ) -> ModelInstallJob:
        """Return a new job for the source that `text` names, or the one that is at it already. Raises UnsupportedSource."""
        source = await asyncio.to_thread(parse_source, text, inplace=inplace, access_token=access_token)
        for job in self._jobs.values():
            if not job.ended and (job.source.type, str(job.source)) == (source.type, str(source)):
                return job
        job = self._make(source, stated)
        if isinstance(source, HFModelSource | URLModelSource):
            fetch = self._fetch(job, source, stated.key or new_key())
            await self._note(fetch)
            fetch.begin()
        else:
            self._waiting.put_nowait(job)
        return job

    def _make(self, source: ModelSource, stated: ModelRecordChanges) -> ModelInstallJob:
        known = {"source": stated.source or str(source), "source_type": stated.source_type or SOURCE_TYPES[source.type]}
        local = source if isinstance(source, LocalModelSource) else None
        job = ModelInstallJob(
            id=self._next,
            source=source,
            config_in=stated.model_copy(update=known),
            inplace=bool(local and local.inplace),
            local_path=Path(local.path).expanduser().absolute() if local else self._resources.settings.models_path,
        )
        self._next += 1
        self._jobs[job.id] = job
        return job

    def _fetch(
        self, job: ModelInstallJob, source: HFModelSource | URLModelSource, key: str, folder: Path | None = None
    ) -> Fetch:
        job.local_path = folder = folder or fetching.new_folder(self._resources.settings.models_path)
        fetch = Fetch(self._resources, self.downloads, self.hub, self._outcomes, job, source, folder, key)
        self._fetches[job.id] = fetch
        return fetch

    def jobs(self) -> list[ModelInstallJob]:
        """Return every job, oldest first."""
        return list(self._jobs.values())

    def get(self, number: int) -> ModelInstallJob:
        """Return a job; raises UnknownInstall."""
        if number not in self._jobs:
            raise UnknownInstall(f"no install job {number}")
        return self._jobs[number]

    def _to_change(self, number: int) -> ModelInstallJob:
        if number not in self._jobs:
            raise NoInstallToChange(f"no install job {number}")
        return self._jobs[number]

    def cancel(self, number: int) -> None:
        """Cancel a job that hasn't ended; one that moves files already is completed. Raises NoInstallToChange."""
        job = self._to_change(number)
        if job.status is InstallStatus.RUNNING:
            self._cancelled.add(number)
        elif not job.ended:
            self._end_cancelled(job)

    async def pause(self, number: int) -> ModelInstallJob:
        """Hold a job that waits or downloads; any other stays as it is. Raises NoInstallToChange."""
        job = self._to_change(number)
        if (fetch := self._fetches.get(number)) is not None:
            fetch.pause()
            await self._change(fetch, paused=job.status is InstallStatus.PAUSED)
        elif job.status is InstallStatus.WAITING:
            job.status = InstallStatus.PAUSED
        return job

    async def resume(self, number: int) -> ModelInstallJob:
        """Let a paused job go on; any other stays as it is. Raises NoInstallToChange."""
        job = self._to_change(number)
        if job.status is not InstallStatus.PAUSED:
            return job
        if (fetch := self._fetches.get(number)) is not None:
            fetch.resume()
            await self._change(fetch, paused=False)
        else:
            job.status = InstallStatus.WAITING
            self._waiting.put_nowait(job)
        return job

    async def restart_failed(self, number: int) -> ModelInstallJob:
        """Go on with the failed downloads of a job; without any it stays as it is. Raises NoInstallToChange."""
        job = self._to_change(number)
        fetch = self._fetches.get(number)
        if fetch is not None and job.status is InstallStatus.ERROR:
            fetch.resume()
            await self._change(fetch, error=None)
        return job

    async def restart_file(self, number: int, url: str) -> ModelInstallJob:
        """Fetch one file of a job anew; a job that is through stays as it is. Raises NoInstallToChange, UnknownPart."""
        job = self._to_change(number)
        fetch = self._fetches.get(number)
        if fetch is not None and job.status in fetching.CHANGEABLE:
            await fetch.restart(url)
            await self._change(fetch, error=None, paused=False)
        return job

    async def prune(self) -> None:
        """Forget the jobs that have ended, and what is here of failed ones."""
        for job in [job for job in self._jobs.values() if job.ended]:
            del self._jobs[job.id]
            if (fetch := self._fetches.pop(job.id, None)) is not None:
                await self._clear(fetch)
            self.downloads.forget(part.id for part in job.download_parts)

    async def installed_sources(self) -> set[str]:
        """Return what the registered models were installed from."""
        async with self._resources.database.read() as connection:
            return await store.sources(connection)

    def places_in_use(self) -> list[Path]:
        """Return where the files of the jobs are that haven't ended, and of those that may be gone on with."""
        local = [job.local_path for job in self._jobs.values() if not job.ended and job.source.type == "local"]
        return local + [fetch.folder for fetch in self._fetches.values()]

    async def _prepare(self) -> None:
        """Clear away what a crash left, and tell the log of models whose files are gone."""
        try:
            await asyncio.to_thread(placement.sweep, self._resources.settings.models_path)
        except OSError as error:
            _log.warning("half-copied models cannot be removed: %s", error)
        for config in await missing(self._resources):
            _log.warning("the files of model %s are missing: %s", config.name, config.path)

    async def _work(self) -> None:
        await self._prepare()
        while (job := await self._waiting.get()) is not None:
            if job.status in {InstallStatus.WAITING, InstallStatus.DOWNLOADS_DONE} and not self._stopping:
                await self._run(job)

    async def _run(self, job: ModelInstallJob) -> None:
        """Register the files of one job. Whatever goes wrong becomes the job's error and never stops the installer."""
        job.status = InstallStatus.RUNNING
        self._resources.events.emit(ModelInstallStartedEvent(id=job.id, source=job.source))
        with log.fields(**job.log_fields):
            await self._run_started(job)

    async def _run_started(self, job: ModelInstallJob) -> None:
        try:
            config = await self._install(job)
        except InstallCancelled:
            if not (self._stopping and job.id in self._fetches):  # what was fetched is registered at the next start
                self._end_cancelled(job)
        except Exception as error:  # noqa: BLE001  (the loop's edge: one job's failure must not end the others)
            self._end_broken(job, error)
        else:
            self._end_completed(job, config)
        self._cancelled.discard(job.id)

    async def _install(self, job: ModelInstallJob) -> ModelConfig:
        stated, fetch = job.config_in.stated(), self._fetches.get(job.id)
        if isinstance(job.source, ExternalModelSource):
            return await register_external(self._resources, self.guard, job.source, stated)
        if fetch is not None:
            stated["key"] = fetch.key
            if isinstance(job.source_metadata, HuggingFaceMetadata):
                stated.setdefault("source_api_response", job.source_metadata.api_response)
        elif not isinstance(job.source, LocalModelSource):
            raise UnsupportedSource(f"{job.source} names no files to install")
        request = Request(
            path=job.local_path,
            source=str(job.config_in.source),
            source_type=job.config_in.source_type or ModelSourceType.Path,
            stated=stated,
            inplace=job.inplace,
            stopped=lambda: self._stopping or job.id in self._cancelled,
        )
        return await register(self._resources, self.guard, request)

    def _end_completed(self, job: ModelInstallJob, config: ModelConfig) -> None:
        models = self._resources.settings.models_path
        job.status, job.config_out = InstallStatus.COMPLETED, config
        job.bytes = job.total_bytes = config.file_size
        job.local_path = placement.absolute(models, config.path)
        _log.info("installed %s model %s (%s)", config.base, config.name, config.key, extra={"key": config.key})
        self._resources.events.emit(
            ModelInstallCompleteEvent(
                id=job.id, source=job.source, key=config.key, total_bytes=job.total_bytes, config=config
            )
        )
        self._let_go(job)

    def _end_broken(self, job: ModelInstallJob, error: Exception) -> None:
        unexpected = not isinstance(error, InvokeCloneError | OSError)
        _log.warning("installing %s failed: %s", shown(str(job.source)), error, exc_info=error if unexpected else None)
        where = "".join(traceback.format_exception(error))
        self._end_failed(job, Failure(type(error).__name__, str(error), where))
        self._let_go(job)

    def _end_failed(self, job: ModelInstallJob, failure: Failure) -> None:
        job.status, job.error_reason, job.error = InstallStatus.ERROR, failure.kind, failure.text
        job.error_traceback = failure.where
        self._resources.events.emit(
            ModelInstallErrorEvent(id=job.id, source=job.source, error_type=failure.kind, error=failure.text)
        )

    def _end_cancelled(self, job: ModelInstallJob) -> None:
        job.status = InstallStatus.CANCELLED
        self._resources.events.emit(ModelInstallCancelledEvent(id=job.id, source=job.source))
        self._let_go(job)

    def _fetched(self, fetch: Fetch) -> None:
        self._waiting.put_nowait(fetch.job)

    def _fetch_failed(self, fetch: Fetch, failure: Failure) -> None:
        reason, extra = failure.where or failure.text, fetch.job.log_fields
        _log.warning("%s cannot be fetched: %s", shown(str(fetch.job.source)), reason, extra=extra)
        self._end_failed(fetch.job, failure)
        self._do_aside(self._change(fetch, error=failure.text))

    def _fetch_cancelled(self, fetch: Fetch) -> None:
        self._end_cancelled(fetch.job)

    async def _planned(self, fetch: Fetch) -> None:
        await self._change(fetch, plan=fetch.plan.model_dump_json() if fetch.plan else None)

    def _let_go(self, job: ModelInstallJob) -> None:
        """Clear away what was fetched for a job that has ended."""
        if (fetch := self._fetches.pop(job.id, None)) is not None:
            self._do_aside(self._clear(fetch))

    async def _clear(self, fetch: Fetch) -> None:
        await fetch.clear()
        if self._lasting:
            async with self._resources.database.write() as connection:
                await journal.remove(connection, fetch.folder.name)

    async def _note(self, fetch: Fetch) -> None:
        if not self._lasting:
            return
        job = fetch.job
        stated = job.config_in.model_dump_json(exclude_unset=True)
        entry = journal.Entry(fetch.folder.name, fetch.key, job.source.model_dump_json(), stated)
        async with self._resources.database.write() as connection:
            await journal.add(connection, entry)

    async def _change(self, fetch: Fetch, **values: str | bool | None) -> None:
        if self._lasting:
            async with self._resources.database.write() as connection:
                await journal.change(connection, fetch.folder.name, **values)

    def _do_aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def _recover(self) -> None:
        """Go on with the installations that an earlier server left, and clear away what belongs to none."""
        models = self._resources.settings.models_path
        async with self._resources.database.read() as connection:
            entries = await journal.entries(connection)
            installed = {entry.folder for entry in entries if await store.exists(connection, entry.key)}
        left = [entry for entry in entries if entry.folder not in installed]
        await asyncio.to_thread(fetching.sweep, models, {entry.folder for entry in left})
        for entry in entries:
            if entry.folder in installed or not await self._go_on(entry):
                async with self._resources.database.write() as connection:
                    await journal.remove(connection, entry.folder)

    async def _go_on(self, entry: journal.Entry) -> bool:
        """Make the job anew that an entry is of; False: it can't be read."""
        folder = self._resources.settings.models_path / entry.folder
        try:
            token = await asyncio.to_thread(fetching.read_token, folder)
            source = _SOURCE.validate_python({**json.loads(entry.source), "access_token": token})
            stated = ModelRecordChanges.model_validate_json(entry.stated)
            plan = Plan.model_validate_json(entry.plan) if entry.plan else None
        except (ValidationError, ValueError, TypeError) as error:
            _log.warning("the installation in %s cannot be gone on with: %s", folder, error)
            return False
        job = self._make(source, stated)
        fetch = self._fetch(job, source, entry.key, folder)
        fetch.plan = plan
        if plan is not None:
            models = self._resources.settings.models_path
            await asyncio.to_thread(fetching.bring_back, models, entry.key, folder, plan)
        if entry.error is not None:
            job.status, job.error_reason, job.error = InstallStatus.ERROR, "DownloadFailed", entry.error
        elif entry.paused:
            job.status = InstallStatus.PAUSED
        else:
            fetch.begin()
        return True
