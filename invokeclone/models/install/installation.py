"""One installation: the job that clients see, and what the server needs beside it to go on with the job."""

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
    LocalModelSource,
    ModelInstallJob,
    URLModelSource,
)
from invokeclone.models.install.journal import InstallEntry
from invokeclone.models.install.plans import DownloadPlan, RemoteSource


@dataclass(eq=False)
class Installation:
    """A job and its work. `states.apply` is the only place that changes `state`."""

    job: ModelInstallJob
    key: str
    """The key that the model will have."""
    folder: Path
    """Where downloads go; its name is the key of the row, also for an installation that downloads nothing."""
    batch: DownloadBatch
    persistent: bool = False
    """Whether a later server goes on with the job where this one ends."""
    plan: DownloadPlan | None = None
    state: InstallStatus | None = None
    """The job's status; None before the first transition and once the job is pruned."""
    has_folder: bool = True
    """Whether row and folder are needed."""
    recovered: bool = False
    """Whether an earlier server may have died while it moved the files."""
    cancel_requested: bool = False
    start_event_emitted: bool = False
    """Whether the event of the downloads' start was emitted by this process."""
    progress_due: Callable[[], bool] = field(default_factory=lambda: throttle(PROGRESS_INTERVAL_S))
    saved_entry: InstallEntry | None = None
    """The row as the database has it."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while row or folder change."""
    task: asyncio.Task[None] | None = None
    """The work on the job; None while it is paused or has ended."""
    last_task: asyncio.Task[None] | None = None
    """Earlier work, which may still be ending."""

    @property
    def remote(self) -> RemoteSource | None:
        """The source, if it is one on the web."""
        source = self.job.source
        return source if isinstance(source, HFModelSource | URLModelSource) else None

    @property
    def moves_files(self) -> bool:
        """Whether files of the user's own change their place."""
        return isinstance(self.job.source, LocalModelSource) and not self.job.inplace

    def entry(self) -> InstallEntry | None:
        """Return the row that the database should have of this state; None: none."""
        registering = self.moves_files and self.state is InstallStatus.RUNNING
        if not (self.has_folder and self.persistent and (self.remote or registering)):
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
        """Bring the job's bytes up to those of its downloads."""
        self.job.bytes = sum(part.bytes for part in self.batch.parts)
        self.job.total_bytes = sum(part.total_bytes for part in self.batch.parts)

    def set_file_name(self, path: Path | None) -> None:
        """Take the name of the only file once the server has sent it: a later process must know it."""
        if self.plan is None or self.plan.root is not None or path is None:
            return
        name = Path(path.name)
        files = [file.model_copy(update={"path": name}) for file in self.plan.files]
        self.plan = self.plan.model_copy(update={"root": name, "files": files})
        self.job.local_path = path

    def interrupt(self) -> None:
        """End the work on the job, unless that is what calls this and ends by itself."""
        if self.task is not None:
            if self.task is not asyncio.current_task():
                self.task.cancel()
            self.last_task, self.task = self.task, None
