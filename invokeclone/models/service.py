"""Installations: jobs kept in memory and the one task that works them off; and the model that ships with the package."""

import asyncio
import json
import traceback
import uuid
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert

from invokeclone.graph.taxonomy import ModelSourceType
from invokeclone.kit import log
from invokeclone.kit.errors import InvokeCloneError, NotFound, UnsupportedMedia
from invokeclone.kit.resources import Resources
from invokeclone.models import placement, store
from invokeclone.models.configs import ModelConfig
from invokeclone.models.errors import DuplicateModelException, InstallCancelled, UnknownModelException
from invokeclone.models.events import (
    ModelInstallCancelledEvent,
    ModelInstallCompleteEvent,
    ModelInstallErrorEvent,
    ModelInstallStartedEvent,
)
from invokeclone.models.files import OnDisk
from invokeclone.models.guard import Guard
from invokeclone.models.hashing import hash_model
from invokeclone.models.jobs import (
    SOURCE_TYPES,
    InstallStatus,
    LocalModelSource,
    ModelInstallJob,
    ModelSource,
    UnsupportedSource,
    parse_source,
)
from invokeclone.models.records import missing
from invokeclone.models.registration import Request, register
from invokeclone.models.schemas import ModelRecordChanges
from invokeclone.tables import app_state

_log = log.get("models")


class UnknownInstall(NotFound):
    """There is no install job with this number (any more)."""


class NoInstallToChange(UnsupportedMedia):
    """The same, as it is answered to whoever wants to change the job."""


class Installer:
    """Installs models one after the other. Made once by the server; `start` and `stop` belong to its life."""

    def __init__(self, resources: Resources) -> None:
        """Make an installer that does nothing yet."""
        self.guard = Guard()
        self._resources = resources
        self._jobs: dict[int, ModelInstallJob] = {}
        self._waiting: asyncio.Queue[ModelInstallJob | None] = asyncio.Queue()
        self._cancelled: set[int] = set()
        self._next = 0
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to work off jobs on the running event loop."""
        self._task = asyncio.create_task(self._work(), name="installer")

    async def stop(self) -> None:
        """Finish: a job that still reads files is cancelled, one that moves them is completed first."""
        self._stopping = True
        self._waiting.put_nowait(None)
        if self._task is not None:
            await self._task

    async def add(
        self, text: str, stated: ModelRecordChanges, *, inplace: bool = False, access_token: str | None = None
    ) -> ModelInstallJob:
        """Return a new job for the source that `text` names, or the one that is at it already. Raises UnsupportedSource."""
        source = await asyncio.to_thread(parse_source, text, inplace=inplace, access_token=access_token)
        for job in self._jobs.values():
            if not job.ended and (job.source.type, str(job.source)) == (source.type, str(source)):
                return job
        return self._queue(source, stated)

    def _queue(self, source: ModelSource, stated: ModelRecordChanges) -> ModelInstallJob:
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
        self._waiting.put_nowait(job)
        return job

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
        if job.status in {InstallStatus.WAITING, InstallStatus.PAUSED}:
            self._end_cancelled(job)
        elif not job.ended:
            self._cancelled.add(number)

    def pause(self, number: int) -> ModelInstallJob:
        """Hold a job that waits; any other stays as it is. Raises NoInstallToChange."""
        job = self._to_change(number)
        if job.status is InstallStatus.WAITING:
            job.status = InstallStatus.PAUSED
        return job

    def resume(self, number: int) -> ModelInstallJob:
        """Let a paused job go on; any other stays as it is. Raises NoInstallToChange."""
        job = self._to_change(number)
        if job.status is InstallStatus.PAUSED:
            job.status = InstallStatus.WAITING
            self._waiting.put_nowait(job)
        return job

    def restart_downloads(self, number: int) -> ModelInstallJob:
        """Start failed downloads of a job anew; without downloads it stays as it is. Raises NoInstallToChange."""
        return self._to_change(number)

    def prune(self) -> None:
        """Forget the jobs that have ended."""
        self._jobs = {number: job for number, job in self._jobs.items() if not job.ended}

    def sources_in_use(self) -> list[Path]:
        """Return where the files of the jobs are that haven't ended."""
        return [job.local_path for job in self._jobs.values() if not job.ended and job.source.type == "local"]

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
            if job.status is InstallStatus.WAITING and not self._stopping:
                await self._run(job)

    async def _run(self, job: ModelInstallJob) -> None:
        """Work off one job. Whatever goes wrong becomes the job's error and never stops the installer."""
        job.status = InstallStatus.RUNNING
        self._resources.events.emit(ModelInstallStartedEvent(id=job.id, source=job.source))
        try:
            config = await self._install(job)
        except InstallCancelled:
            self._end_cancelled(job)
        except Exception as error:  # noqa: BLE001  (the loop's edge: one job's failure must not end the others)
            self._end_failed(job, error)
        else:
            self._end_completed(job, config)
        self._cancelled.discard(job.id)

    async def _install(self, job: ModelInstallJob) -> ModelConfig:
        if not isinstance(job.source, LocalModelSource):
            raise UnsupportedSource(f"{job.source}: downloads are not available yet; install from a local path")
        request = Request(
            path=job.local_path,
            source=str(job.config_in.source),
            source_type=job.config_in.source_type or ModelSourceType.Path,
            stated=job.config_in.stated(),
            inplace=job.inplace,
            stopped=lambda: self._stopping or job.id in self._cancelled,
        )
        return await register(self._resources, self.guard, request)

    def _end_completed(self, job: ModelInstallJob, config: ModelConfig) -> None:
        models = self._resources.settings.models_path
        job.status, job.config_out = InstallStatus.COMPLETED, config
        job.bytes = job.total_bytes = config.file_size
        job.local_path = placement.absolute(models, config.path)
        _log.info("installed %s model %s (%s)", config.base, config.name, config.key)
        self._resources.events.emit(
            ModelInstallCompleteEvent(
                id=job.id, source=job.source, key=config.key, total_bytes=job.total_bytes, config=config
            )
        )

    def _end_failed(self, job: ModelInstallJob, error: Exception) -> None:
        job.status, job.error_reason, job.error = InstallStatus.ERROR, type(error).__name__, str(error)
        job.error_traceback = "".join(traceback.format_exception(error))
        unexpected = not isinstance(error, InvokeCloneError | OSError)
        _log.warning("installing %s failed: %s", job.source, error, exc_info=error if unexpected else None)
        self._resources.events.emit(
            ModelInstallErrorEvent(id=job.id, source=job.source, error_type=type(error).__name__, error=str(error))
        )

    def _end_cancelled(self, job: ModelInstallJob) -> None:
        job.status = InstallStatus.CANCELLED
        self._resources.events.emit(ModelInstallCancelledEvent(id=job.id, source=job.source))


EMBEDDED = Path(__file__).parents[1] / "families" / "sd1" / "embedded"
"""Folder of the model that ships with the package (`model/`) and of what its record states (`defaults.json`)."""

EMBEDDED_KEY = str(uuid.uuid5(uuid.NAMESPACE_URL, "invokeclone:embedded"))
"""The embedded model's key, the same everywhere, so that graphs that name it can be passed on."""

_REGISTERED = "embedded_model_registered"


async def register_embedded(resources: Resources, folder: Path = EMBEDDED) -> ModelConfig | None:
    """Register the model that ships with the package, once in a database's life; return its record if there is one.

    Somebody who deletes the record is not given it again. When the package has moved or brings another version of
    the model, the record follows. Without the model's files, or with damaged ones, nothing happens but a line in the log.
    """
    files = folder / "model"
    if not await asyncio.to_thread(files.is_dir):
        _log.info("there is no embedded model at %s", files)
        return None
    async with resources.database.read() as connection:
        before = await connection.scalar(select(app_state.c.value).where(app_state.c.key == _REGISTERED))
    if before is not None:
        return await _follow(resources, files)
    stated: dict[str, Any] = json.loads(await asyncio.to_thread((folder / "defaults.json").read_text, "utf-8"))
    request = Request(
        path=files,
        source=files.as_posix(),
        source_type=ModelSourceType.Path,
        stated={**stated, "key": EMBEDDED_KEY},
        inplace=True,
    )
    config = None
    try:
        config = await register(resources, Guard(), request)
    except DuplicateModelException as error:
        _log.info("the embedded model is not registered again: %s", error)
    except (InvokeCloneError, OSError) as error:
        _log.warning("the embedded model cannot be registered: %s", error)
        return None
    async with resources.database.write() as connection:
        await connection.execute(insert(app_state).values(key=_REGISTERED, value="true").on_conflict_do_nothing())
    return config


async def _follow(resources: Resources, files: Path) -> ModelConfig | None:
    """Bring path, hash and size of the embedded model's record up to the files at `files`; None when it was deleted."""
    try:
        async with resources.database.read() as connection:
            config = await store.get(connection, EMBEDDED_KEY)
    except UnknownModelException:
        return None
    model = OnDisk(files)
    algorithm = config.hash.partition(":")[0]
    hashed = await asyncio.to_thread(hash_model, model, algorithm) if algorithm != "random" else config.hash
    recorded = placement.recorded(resources.settings.models_path, model.path)
    found = {"path": recorded, "hash": hashed, "file_size": await asyncio.to_thread(lambda: model.size)}
    current = config.model_copy(update=found)
    if current != config:
        async with resources.database.write() as connection:
            await store.update(connection, current)
    return current
