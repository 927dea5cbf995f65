"""State of one installation: the job shown to clients, and the server's own data for it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from invokeclone.downloads.queue import PROGRESS_INTERVAL_S
from invokeclone.downloads.transfer import throttle
from invokeclone.models.install.batch import DownloadBatch
from invokeclone.models.install.jobs import (
    HFModelSource,
    InstallStatus,
    ModelInstallJob,
    URLModelSource,
)
from invokeclone.models.install.journal import InstallEntry
from invokeclone.models.install.plans import DownloadPlan, RemoteSource
from invokeclone.models.install.registration import Files


@dataclass(eq=False)
class Installation:
    """An install job with its internal state. Only `states.apply` changes `state`."""

    job: ModelInstallJob
    key: str
    """Key of the model to be registered."""
    folder: Path
    """Folder of the downloads; its name is the key of the row, even if nothing is downloaded."""
    batch: DownloadBatch
    persistent: bool = False
    """Whether the job is resumed after a server restart, if it downloads."""
    move: bool = False
    """Whether local files are removed once they are copied and registered."""
    plan: DownloadPlan | None = None
    state: InstallStatus | None = None
    """The job's status; None before the first transition and after the job is pruned."""
    has_folder: bool = True
    """Whether row and folder are still needed."""
    recovered: bool = False
    """Whether an earlier server process may have crashed while it moved the downloaded files."""
    earlier_plan: DownloadPlan | None = None
    """The plan of an earlier attempt, whose files are in the folder."""
    cancel_requested: bool = False
    start_event_emitted: bool = False
    """Whether this process has emitted ModelInstallDownloadStartedEvent."""
    progress_due: Callable[[], bool] = field(default_factory=lambda: throttle(PROGRESS_INTERVAL_S))
    saved_entry: InstallEntry | None = None
    """The row in the database."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while row or folder are changed."""
    task: asyncio.Task[None] | None = None
    """The task that processes the job; None while it is paused or has ended."""
    last_task: asyncio.Task[None] | None = None
    """The previous task, which may not have ended yet."""

    @property
    def remote(self) -> RemoteSource | None:
        """The source if it is remote, else None."""
        source = self.job.source
        return source if isinstance(source, HFModelSource | URLModelSource) else None

    @property
    def file_handling(self) -> Files:
        """What happens to the files."""
        if self.remote:
            return Files.OURS
        if self.job.inplace:
            return Files.STAY
        return Files.MOVED if self.move else Files.COPIED

    def entry(self) -> InstallEntry | None:
        """Return the row that the database should have in this state, or None."""
        if not (self.has_folder and self.persistent and self.remote):
            return None
        return InstallEntry(
            folder=self.folder.name,
            key=self.key,
            source=self.job.source.model_dump_json(),
            stated=self.job.config_in.model_dump_json(exclude_unset=True),
            plan=self.plan.model_dump_json() if self.plan else None,
            paused=self.state is InstallStatus.PAUSED,
            error=self.job.error if self.state is InstallStatus.ERROR else None,
        )

    def update_bytes(self) -> None:
        """Update the job's byte counts from its downloads."""
        self.job.bytes = sum(part.bytes for part in self.batch.parts)
        self.job.total_bytes = sum(part.total_bytes for part in self.batch.parts)

    def set_file_name(self, path: Path | None) -> None:
        """Set the name of the only file once the server has sent it; it is saved for a restart."""
        if self.plan is None or self.plan.root is not None or path is None:
            return
        name = Path(path.name)
        files = [file.model_copy(update={"path": name}) for file in self.plan.files]
        self.plan = self.plan.model_copy(update={"root": name, "files": files})
        self.job.local_path = path

    def interrupt(self) -> None:
        """Cancel the task of the job, unless it is the current task, which ends by itself."""
        if self.task is not None:
            if self.task is not asyncio.current_task():
                self.task.cancel()
            self.last_task, self.task = self.task, None
