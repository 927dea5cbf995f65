"""The downloads of one installation: planned, watched, paused, gone on with, begun anew, and cleared away.

It keeps the install job up to date and tells of it. What happens to the files once all are here is the installer's.
"""

import asyncio
import contextlib
import os
import secrets
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from invokeclone.downloads.part import check_space
from invokeclone.downloads.queue import PROGRESS_S, DownloadQueue, DownloadRequest, Watcher
from invokeclone.downloads.schemas import DownloadJob, DownloadJobStatus
from invokeclone.downloads.transfer import finished, pace
from invokeclone.kit import log, paths, processes
from invokeclone.kit.errors import InvokeCloneError, NotFound
from invokeclone.kit.resources import Resources
from invokeclone.kit.storage import write_file
from invokeclone.models.install.events import (
    ModelInstallDownloadProgressEvent,
    ModelInstallDownloadsCompleteEvent,
    ModelInstallDownloadStartedEvent,
)
from invokeclone.models.install.hub import Hub
from invokeclone.models.install.jobs import InstallStatus, ModelInstallJob
from invokeclone.models.install.metadata import RemoteModelFile
from invokeclone.models.install.plans import Plan, RemoteSource, make_plan
from invokeclone.models.records import placement

FOLDER = "tmpinstall_"
_TOKEN = ".token"  # noqa: S105  (the file's name)
_UNDER_WAY = {InstallStatus.WAITING, InstallStatus.DOWNLOADING}
CHANGEABLE = _UNDER_WAY | {InstallStatus.PAUSED, InstallStatus.ERROR}
"""How far jobs are whose downloads can be begun anew."""
_ACTIVE = {DownloadJobStatus.WAITING, DownloadJobStatus.RUNNING}

_log = log.get("models")


class UnknownPart(NotFound):
    """The installation fetches no such file."""


@dataclass(frozen=True)
class Failure:
    """Why the downloads of an installation failed."""

    kind: str
    text: str
    where: str | None = None


@dataclass(frozen=True)
class Outcomes:
    """What the installer is told: all is here; it failed; somebody cancelled a part; the plan is made or known better."""

    done: Callable[["Fetch"], None]
    failed: Callable[["Fetch", Failure], None]
    cancelled: Callable[["Fetch"], None]
    planned: Callable[["Fetch"], Awaitable[None]]


class Fetch:
    """The downloads of a job, into a folder of their own."""

    def __init__(
        self,
        resources: Resources,
        downloads: DownloadQueue,
        hub: Hub,
        outcomes: Outcomes,
        job: ModelInstallJob,
        source: RemoteSource,
        folder: Path,
        key: str,
    ) -> None:
        """Get ready for `job` from `source`; nothing happens before `begin` or `resume`. The model will have `key`."""
        self.job = job
        self.key = key
        self.folder = folder
        self.plan: Plan | None = None
        self._source = source
        self._resources = resources
        self._downloads = downloads
        self._hub = hub
        self._outcomes = outcomes
        self._planning: asyncio.Task[None] | None = None
        self._noting: set[asyncio.Task[None]] = set()
        self._told = False
        self._due = pace(PROGRESS_S)

    def begin(self) -> None:
        """Plan, unless that was done, and fetch."""
        self.job.status = InstallStatus.WAITING
        self._planning = asyncio.create_task(self._begin(), name=f"plan of install {self.job.id}")

    def pause(self) -> None:
        """Hold what waits or is being fetched; what is here stays."""
        if self.job.status in _UNDER_WAY:
            self.job.status = InstallStatus.PAUSED
            self._halt_planning()
            self._hold_parts()

    def resume(self) -> None:
        """Go on with a paused job, or with the failed downloads of one that failed."""
        if self.job.status not in {InstallStatus.PAUSED, InstallStatus.ERROR}:
            return
        self._reopen()
        if self.job.download_parts:
            self._resume_parts()
        else:
            self.begin()

    async def restart(self, url: str) -> None:
        """Fetch one file anew, and let the job go on. Raises UnknownPart."""
        part = next((part for part in self.job.download_parts if str(part.source) == url), None)
        if part is None:
            raise UnknownPart(f"install job {self.job.id} fetches no {url}")
        if part.status is DownloadJobStatus.COMPLETED:
            return
        self._reopen()
        await self._downloads.restart(part.id)
        if self.job.status in _UNDER_WAY:
            self._resume_parts()

    def _resume_parts(self) -> None:
        for part in self.job.download_parts:
            self._downloads.resume(part.id)
        if self.job.status in _UNDER_WAY:
            self._settle()  # the last one may have become whole just when it was paused

    def _reopen(self) -> None:
        job = self.job
        job.status = InstallStatus.WAITING
        job.error = job.error_reason = job.error_traceback = None

    async def clear(self) -> None:
        """End every download and remove the folder."""
        if self._planning is not None:
            self._planning.cancel()
            await asyncio.wait([self._planning])
        numbers = [part.id for part in self.job.download_parts]
        for number in numbers:
            with contextlib.suppress(NotFound):  # forgotten, as somebody pruned the jobs meanwhile
                self._downloads.cancel(number)
        await self._downloads.settled(numbers)
        if self._noting:
            await asyncio.wait(self._noting)
        try:
            await finished(_erase, self.folder)
        except OSError as error:
            _log.warning("%s cannot be removed: %s", self.folder, error)

    async def stop(self) -> None:
        """End the planning, keeping everything for the next start."""
        tasks = [task for task in (self._planning, *self._noting) if task is not None]
        self._halt_planning()
        if tasks:
            await asyncio.wait(tasks)

    def _halt_planning(self) -> None:
        if self._planning is not None:
            self._planning.cancel()

    def _hold_parts(self) -> None:
        for part in self.job.download_parts:
            self._downloads.pause(part.id)

    async def _begin(self) -> None:
        try:
            await asyncio.to_thread(_make, self.folder, self._source.access_token)
            if self.plan is None:
                self.plan = await make_plan(self._source, self._hub, self._resources.settings)
                await self._outcomes.planned(self)
            await self._submit(self.plan)
        except Exception as error:  # noqa: BLE001  (becomes the job's error)
            expected = isinstance(error, InvokeCloneError | OSError)
            where = None if expected else "".join(traceback.format_exception(error))
            self._outcomes.failed(self, Failure(type(error).__name__, str(error), where))

    async def _submit(self, plan: Plan) -> None:
        """Queue the downloads of every file that isn't here already."""
        job = self.job
        job.source_metadata = plan.metadata
        job.local_path = self.folder / (plan.root or "")
        job.download_parts = await add_parts(plan, self.folder, self._source, self._downloads, self._hub, self._watch)
        self._count()
        self._resume_parts()

    def _watch(self, part: DownloadJob) -> None:
        """Hear of a part's change."""
        if self.job.status not in _UNDER_WAY:
            return
        self._count()
        self._learn(part)
        match part.status:
            case DownloadJobStatus.RUNNING:
                self._tell_progress()
            case DownloadJobStatus.ERROR:
                self._fail(part)
            case DownloadJobStatus.CANCELLED:
                self._outcomes.cancelled(self)
            case _:
                self._settle()

    def _settle(self) -> None:
        """See whether the job is through with its parts."""
        statuses = {part.status for part in self.job.download_parts}
        if statuses == {DownloadJobStatus.COMPLETED}:
            self._tell_started()
            self._resources.events.emit(ModelInstallDownloadsCompleteEvent(id=self.job.id, source=self.job.source))
            self.job.status = InstallStatus.DOWNLOADS_DONE
            self._outcomes.done(self)
        elif not statuses & _ACTIVE:
            failed = next((p for p in self.job.download_parts if p.status is DownloadJobStatus.ERROR), None)
            if failed is not None:
                self._fail(failed)

    def _fail(self, part: DownloadJob) -> None:
        self._outcomes.failed(self, Failure(part.error_type or "DownloadFailed", part.error or ""))
        self._hold_parts()

    def _count(self) -> None:
        self.job.bytes = sum(part.bytes for part in self.job.download_parts)
        self.job.total_bytes = sum(part.total_bytes for part in self.job.download_parts)

    def _learn(self, part: DownloadJob) -> None:
        """Note the name of the only file, once the other side has said it: after a restart it must be known."""
        if self.plan is None or self.plan.root is not None or part.download_path is None:
            return
        name = Path(part.download_path.name)
        self.plan = self.plan.model_copy(
            update={"root": name, "files": [file.model_copy(update={"path": name}) for file in self.plan.files]}
        )
        self.job.local_path = part.download_path
        task = asyncio.ensure_future(self._outcomes.planned(self))
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)

    def _tell_started(self) -> None:
        self.job.status = InstallStatus.DOWNLOADING
        if not self._told:
            self._told = True
            self._due()
            self._resources.events.emit(ModelInstallDownloadStartedEvent(**self._facts()))

    def _tell_progress(self) -> None:
        if not self._told or self.job.status is InstallStatus.WAITING:
            self._tell_started()
        elif self._due():
            self._resources.events.emit(ModelInstallDownloadProgressEvent(**self._facts()))

    def _facts(self) -> "dict[str, object]":
        parts: list[dict[str, int | str]] = [
            {
                "url": str(part.source),
                "local_path": str(part.download_path or part.dest),
                "bytes": part.bytes,
                "total_bytes": part.total_bytes,
            }
            for part in self.job.download_parts
        ]
        job = self.job
        return {
            "id": job.id,
            "source": job.source,
            "local_path": str(job.local_path),
            "bytes": job.bytes,
            "total_bytes": job.total_bytes,
            "parts": parts,
        }


async def add_parts(
    plan: Plan, folder: Path, source: RemoteSource, downloads: DownloadQueue, hub: Hub, watch: Watcher
) -> list[DownloadJob]:
    """Add a held download into `folder` for every file of `plan`; those that are here already are complete.

    Raises DiskFull when they would not fit together.
    """
    here = await asyncio.to_thread(_sizes, folder, plan.files)
    await asyncio.to_thread(check_space, folder, plan.size - sum(here.values()))
    wanted = []
    for file in plan.files:
        url, place = str(file.url), folder / file.path
        token = source.access_token or downloads.web.token_for(url) or await hub.token_for(url)
        known = place if file.path != Path() else None
        wanted.append(DownloadRequest(file.url, place, token, sha256=file.sha256, size=file.size, file=known))
    parts = [downloads.add(one, watch, held=True) for one in wanted]
    for part, file in zip(parts, plan.files, strict=True):
        if file.path in here:
            downloads.found(part.id, here[file.path])
    return parts


def new_folder(models: Path) -> Path:
    """Return a folder for the files of an installation (not made yet); its name says which process it is of."""
    return models / f"{FOLDER}{os.getpid()}_{secrets.token_hex(6)}"


def sweep(models: Path, known: set[str]) -> None:
    """Remove folders of installations that nobody goes on with: not `known`, and of no other running process. Blocking."""
    for folder in models.glob(f"{FOLDER}*"):
        pid = folder.name.removeprefix(FOLDER).partition("_")[0]
        if folder.name not in known and (pid == str(os.getpid()) or not processes.runs(pid)):
            with contextlib.suppress(OSError):
                paths.erase(folder)


def bring_back(models: Path, key: str, folder: Path, plan: Plan) -> None:
    """Bring files back that were moved to where the model `key` will lie when the server died before its record. Blocking."""
    if plan.root is None or (folder / plan.root).exists() or not (models / key).is_dir():
        return
    single = [file.path for file in plan.files] == [plan.root]
    folder.mkdir(exist_ok=True)
    placement.move_back(models, models / key / plan.root if single else models / key, folder / plan.root, key)


def read_token(folder: Path) -> str | None:
    """Return the token that an installation was given, if any. Blocking."""
    try:
        return (folder / _TOKEN).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _make(folder: Path, token: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if token:
        write_file(folder / _TOKEN, token.encode(), 0o600)


def _sizes(folder: Path, files: list[RemoteModelFile]) -> dict[Path, int]:
    """Return the sizes of those files that are here: they got their names when they were whole."""
    found = {file.path: folder / file.path for file in files if file.path != Path()}
    return {name: path.stat().st_size for name, path in found.items() if path.is_file()}


def _erase(folder: Path) -> None:
    if folder.exists():
        paths.erase(folder)
