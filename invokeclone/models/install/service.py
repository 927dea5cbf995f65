"""The installer: create, list, pause, resume, cancel and prune install jobs, and recover them after a restart."""

import asyncio
import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from invokeclone.downloads.queue import DownloadQueue
from invokeclone.downloads.schemas import DownloadJobStatus
from invokeclone.kit import log
from invokeclone.kit.errors import BadRequest, NotFound, UnsupportedMedia
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import new_key
from invokeclone.models.identify.explicit_kind import check_kind
from invokeclone.models.install import folders, journal, states
from invokeclone.models.install.batch import DownloadBatch
from invokeclone.models.install.installation import Installation
from invokeclone.models.install.jobs import (
    SOURCE_TYPES,
    ExternalModelSource,
    HFModelSource,
    LocalModelSource,
    ModelInstallJob,
    ModelSource,
    URLModelSource,
    parse_source,
)
from invokeclone.models.install.journal import InstallEntry
from invokeclone.models.install.machine import InstallMachine
from invokeclone.models.install.plans import DownloadPlan, RemoteSource
from invokeclone.models.install.registration import is_key
from invokeclone.models.install.sources.hub import Hub
from invokeclone.models.install.states import CANCELLED, ERROR, PAUSED, RUNNING, UNDER_WAY, WAITING
from invokeclone.models.records import placement, staging, store
from invokeclone.models.records.changes import list_missing
from invokeclone.models.records.guard import Guard
from invokeclone.models.records.schemas import ModelRecordChanges

_log = log.get("models")
_SOURCE = TypeAdapter[RemoteSource](RemoteSource)


class UnknownInstall(NotFound):
    """No install job has this id."""


class MoveInPlace(BadRequest):
    """Files cannot both stay and be moved."""


class NoInstallToChange(UnsupportedMedia):
    """No install job has this id; raised by requests that change a job."""


class UnknownPart(NotFound):
    """The install job has no download with this URL."""


class Installer:
    """Installs models: concurrent downloads, sequential registration. Call `start` first and `stop` at the end."""

    def __init__(
        self, resources: Resources, downloads: DownloadQueue | None = None, *, persistent: bool = False
    ) -> None:
        """Create an installer; it registers nothing before `start`.

        With `persistent`, unfinished jobs are saved and resumed by the next installer at its start.
        """
        self.guard = Guard()
        self.downloads = downloads or DownloadQueue(resources.settings, resources.events)
        self.hub = Hub(resources.settings, self.downloads.web)
        self._owns_downloads = downloads is None
        self._persistent = persistent
        self._resources = resources
        self._machine = InstallMachine(resources, self.downloads, self.hub, self.guard)
        self._installations: dict[int, Installation] = {}
        self._adding = asyncio.Lock()
        self._next = 0
        self._server_id: str | None = None
        """Set if other servers use the same database."""
        self._startup_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start processing jobs on the running event loop."""
        if self._resources.database.is_shared:
            self._server_id = await in_thread(folders.server_id, self._resources.settings)
        if self._persistent:
            await self._recover()
        self._startup_task = asyncio.create_task(self._start_up(), name="installer")

    async def stop(self) -> None:
        """Stop: registrations are cancelled unless they are moving files already, and downloads are interrupted."""
        if self._startup_task is not None:
            await self._startup_task
        await self._machine.stop(list(self._installations.values()))
        if self._owns_downloads:
            await self.downloads.stop()

    async def add(
        self,
        text: str,
        overrides: ModelRecordChanges,
        *,
        inplace: bool = False,
        move: bool = False,
        access_token: str | None = None,
    ) -> ModelInstallJob:
        """Return a job for the source `text`: an active one, a failed one that has downloads, or a new one.

        Local files are copied unless `inplace` or `move` is true. Raises UnsupportedSource, MoveInPlace, and
        InvalidModelRecord if `overrides` state a kind of model that does not exist.
        """
        if inplace and move:
            raise MoveInPlace("either `inplace` or `move` may be true, not both")
        source = await in_thread(parse_source, text, inplace=inplace, access_token=access_token)
        if not isinstance(source, ExternalModelSource):
            check_kind(overrides.explicit_fields())
        async with self._adding:
            for other in self._installations.values():
                if (other.job.source.type, str(other.job.source)) != (source.type, str(source)):
                    continue
                if not other.job.ended:
                    return other.job
                if other.state is ERROR and other.has_folder and other.remote:
                    return await self._retry(other, source, overrides)
            installation = self._create(source, overrides, overrides.key or new_key())
            installation.move = move
            await self._machine.save(installation)
            self._installations[installation.job.id] = installation
        self._machine.change_state(installation, WAITING)
        self._machine.start(installation)
        return installation.job

    def jobs(self) -> list[ModelInstallJob]:
        """Return all jobs, oldest first."""
        return [installation.job for installation in self._installations.values()]

    def get(self, number: int) -> ModelInstallJob:
        """Return a job. Raises UnknownInstall."""
        if number not in self._installations:
            raise UnknownInstall(f"no install job {number}")
        return self._installations[number].job

    async def cancel(self, number: int) -> None:
        """Cancel a job that has not ended; one that is moving files is completed. Raises NoInstallToChange."""
        job = self._get_for_change(number)
        if job.state is RUNNING:
            job.cancel_requested = True
        elif not job.job.ended:
            self._machine.change_state(job, CANCELLED)
            await self._machine.save(job)

    async def pause(self, number: int) -> ModelInstallJob:
        """Pause a job that waits or downloads; has no effect in other states. Raises NoInstallToChange."""
        job = self._get_for_change(number)
        if job.state in UNDER_WAY:
            self._machine.change_state(job, PAUSED)
            job.batch.pause()
            await self._machine.save(job)
        return job.job

    async def resume(self, number: int) -> ModelInstallJob:
        """Resume a paused job; has no effect in other states. Raises NoInstallToChange."""
        job = self._get_for_change(number)
        if job.state is PAUSED:
            await self._resume_work(job)
        return job.job

    async def restart_failed(self, number: int) -> ModelInstallJob:
        """Retry a failed job with the files that it has downloaded; else no effect. Raises NoInstallToChange."""
        job = self._get_for_change(number)
        if job.state is ERROR and job.has_folder:
            await self._resume_work(job)
        return job.job

    async def restart_file(self, number: int, url: str) -> ModelInstallJob:
        """Download one file of a job again, unless its downloads are done. Raises NoInstallToChange, UnknownPart."""
        job = self._get_for_change(number)
        if job.state not in states.RESTARTABLE or not job.has_folder or job.remote is None:
            return job.job
        part = next((part for part in job.batch.parts if str(part.source) == url), None)
        if part is None:
            raise UnknownPart(f"install job {number} has no download of {url}")
        if part.status is not DownloadJobStatus.COMPLETED:
            await self._machine.restart(job, part)
            await self._machine.save(job)
        return job.job

    async def prune(self) -> None:
        """Remove the jobs that have ended, and the partial files of failed ones."""
        for number, job in list(self._installations.items()):
            if job.job.ended:
                del self._installations[number]
                self._machine.change_state(job, None)
                job.batch.forget()
        await self._machine.wait_for_background()

    async def list_sources(self) -> set[str]:
        """Return the sources of the registered models."""
        async with self._resources.database.read() as connection:
            return await store.sources(connection)

    def paths_in_use(self) -> list[Path]:
        """Return the paths used by jobs that have not ended or may be resumed."""
        models, jobs = self._resources.settings.models_path, self._installations.values()
        local = [job.job.local_path for job in jobs if not job.job.ended and job.job.source.type == "local"]
        remote = [job for job in jobs if job.remote and job.has_folder]
        moved = [models / job.key for job in remote if job.recovered and is_key(job.key)]
        return [*local, *(job.folder for job in remote), *moved]

    def _create(self, source: ModelSource, overrides: ModelRecordChanges, key: str) -> Installation:
        models = self._resources.settings.models_path
        local = source if isinstance(source, LocalModelSource) else None
        remote = isinstance(source, HFModelSource | URLModelSource)
        folder = folders.new_folder(models, self._server_id)
        job = ModelInstallJob(
            id=self._next,
            source=source,
            config_in=_with_source(overrides, source),
            inplace=bool(local and local.inplace),
            local_path=Path(local.path).expanduser().absolute() if local else folder if remote else models,
        )
        self._next += 1
        batch = DownloadBatch(self.downloads, self.hub, lambda part: self._machine.watch(installation, part))
        installation = Installation(job, key, folder, batch, persistent=self._persistent)
        return installation

    async def _retry(self, job: Installation, source: ModelSource, overrides: ModelRecordChanges) -> ModelInstallJob:
        """Retry a failed job with another request for the same source; complete and partial downloads are used."""
        await job.batch.reset()
        if isinstance(source, HFModelSource):  # the repository may have changed
            job.earlier_plan, job.plan = job.plan, None
        job.job.source, job.job.config_in = source, _with_source(overrides, source)
        job.job.download_parts = []
        job.key = overrides.key or new_key()
        await self._resume_work(job)
        return job.job

    def _get_for_change(self, number: int) -> Installation:
        if number not in self._installations:
            raise NoInstallToChange(f"no install job {number}")
        return self._installations[number]

    async def _resume_work(self, job: Installation) -> None:
        self._machine.change_state(job, WAITING)
        self._machine.start(job)
        await self._machine.save(job)

    async def _start_up(self) -> None:
        """Remove leftovers of a crash, log models with missing files, and enable registration."""
        try:
            models = self._resources.settings.models_path
            async with self._resources.database.read() as connection:
                keys = (await store.paths(connection)).keys()
            if self._server_id is None:  # process ids say nothing about processes of other machines
                await in_thread(placement.remove_abandoned_copies, models)
                await in_thread(staging.remove_abandoned, models, keys)
            for config in await list_missing(self._resources):
                _log.warning("the files of model %s are missing: %s", config.name, config.path)
        except Exception as error:  # noqa: BLE001  (no failure here may prevent installations)
            _log.warning("the models folder cannot be checked: %s", error)
        finally:
            self._machine.ready.set()

    async def _recover(self) -> None:
        """Resume the installations of an earlier server on this root, and remove folders that belong to none."""
        models = self._resources.settings.models_path
        async with self._resources.database.read() as connection:
            all_entries = await journal.entries(connection)
            entries = [entry for entry in all_entries if folders.is_of_server(entry.folder, self._server_id)]
            registered = {entry.folder for entry in entries if await store.exists(connection, entry.key)}
        needed = {}
        for entry in entries:
            job = None if entry.folder in registered else await in_thread(self._load_entry, entry)
            if job is not None:
                needed[entry.folder] = job
            else:
                async with self._resources.database.write() as connection:
                    await journal.remove(connection, entry.folder)
        await in_thread(folders.remove_abandoned, models, set(needed), self._server_id)
        for entry in entries:
            if (job := needed.get(entry.folder)) is not None:
                self._resume_after_restart(job, entry)

    def _load_entry(self, entry: InstallEntry) -> Installation | None:
        """Return the job of a row, or None if the row cannot be parsed. Blocking."""
        folder = self._resources.settings.models_path / entry.folder
        try:
            token = folders.read_token(folder)
            source = _SOURCE.validate_python({**json.loads(entry.source), "access_token": token})
            overrides = ModelRecordChanges.model_validate_json(entry.stated)
            plan = DownloadPlan.model_validate_json(entry.plan) if entry.plan else None
        except (ValidationError, ValueError, TypeError) as error:
            _log.warning("the installation in %s cannot be resumed: %s", folder, error)
            return None
        job = self._create(source, overrides, entry.key)
        job.folder, job.plan, job.saved_entry, job.recovered = folder, plan, entry, True
        job.job.local_path = folder
        return job

    def _resume_after_restart(self, job: Installation, entry: InstallEntry) -> None:
        self._installations[job.job.id] = job
        if entry.error is not None:
            fields = {"error_reason": "DownloadFailed", "error": entry.error, "error_traceback": None}
            self._machine.change_state(job, ERROR, **fields)
        elif entry.paused:
            self._machine.change_state(job, PAUSED)
        else:
            self._machine.change_state(job, WAITING)
            self._machine.start(job)


def _with_source(overrides: ModelRecordChanges, source: ModelSource) -> ModelRecordChanges:
    """Return the fields set by the user, with a source unless they have one."""
    source_fields = {
        "source": overrides.source or str(source),
        "source_type": overrides.source_type or SOURCE_TYPES[source.type],
    }
    return overrides.model_copy(update=source_fields)
