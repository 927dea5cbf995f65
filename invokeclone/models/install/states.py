"""State machine of an installation: a table of the allowed transitions and their effects.

Only `apply` changes a job's status; transitions that are not in the table are refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from invokeclone.kit.events import Emitter, Event
from invokeclone.models.install import events
from invokeclone.models.install.installation import Installation
from invokeclone.models.install.jobs import InstallStatus

WAITING = InstallStatus.WAITING
DOWNLOADING = InstallStatus.DOWNLOADING
DOWNLOADS_DONE = InstallStatus.DOWNLOADS_DONE
RUNNING = InstallStatus.RUNNING
PAUSED = InstallStatus.PAUSED
COMPLETED = InstallStatus.COMPLETED
ERROR = InstallStatus.ERROR
CANCELLED = InstallStatus.CANCELLED

UNDER_WAY = frozenset({WAITING, DOWNLOADING})
"""States in which a job plans its downloads or downloads."""
RESTARTABLE = UNDER_WAY | {PAUSED, ERROR}
"""States in which a single file of a job can be downloaded again."""
WORKING = UNDER_WAY | {DOWNLOADS_DONE, RUNNING}
"""States in which a task processes the job or waits its turn; every other state ends that task."""


class RowChange(StrEnum):
    """Effect of a transition on the job's row in `model_installs`."""

    UNCHANGED = "unchanged"
    SAVED = "saved"
    """Source, overrides, plan, paused flag and error are written if they differ."""
    REMOVED = "removed"


class FolderChange(StrEnum):
    """Effect of a transition on the folder of the downloads and its content."""

    UNCHANGED = "unchanged"
    REMOVED = "removed"
    """Removed after the row: a folder without a row is removed at the next start."""


class TransitionRefused(RuntimeError):
    """The transition is not in the table, or its fields are not those in the table."""


@dataclass(frozen=True)
class Transition:
    """Effects of a transition besides the status change. The event is emitted after the fields are set."""

    event: Callable[[Installation], Event | None] | None = None
    row: RowChange = RowChange.UNCHANGED
    folder: FolderChange = FolderChange.UNCHANGED
    fields: frozenset[str] = frozenset()
    """Fields of the job that the caller must provide."""
    clears: frozenset[str] = frozenset()
    """Fields of the job that are set to None."""


def _progress(job: Installation) -> dict[str, Any]:
    parts = [
        {
            "url": str(part.source),
            "local_path": str(part.download_path or part.dest),
            "bytes": part.bytes,
            "total_bytes": part.total_bytes,
        }
        for part in job.batch.parts
    ]
    client_job = job.job
    return {
        **_source(job),
        "local_path": str(client_job.local_path),
        "bytes": client_job.bytes,
        "total_bytes": client_job.total_bytes,
        "parts": parts,
    }


def _source(job: Installation) -> dict[str, Any]:
    return {"id": job.job.id, "source": job.job.source}


def _download_start_event(job: Installation) -> Event | None:
    """Return the event only the first time, not again after a pause."""
    if job.start_event_emitted:
        return None
    job.start_event_emitted = True
    job.progress_due()
    return events.ModelInstallDownloadStartedEvent(**_progress(job))


def _download_progress_event(job: Installation) -> Event:
    return events.ModelInstallDownloadProgressEvent(**_progress(job))


def _downloads_complete_event(job: Installation) -> Event:
    return events.ModelInstallDownloadsCompleteEvent(**_source(job))


def _start_event(job: Installation) -> Event:
    return events.ModelInstallStartedEvent(**_source(job))


def _complete_event(job: Installation) -> Event:
    config = job.job.config_out
    assert config is not None
    return events.ModelInstallCompleteEvent(
        **_source(job), key=config.key, total_bytes=job.job.total_bytes, config=config
    )


def _error_event(job: Installation) -> Event:
    return events.ModelInstallErrorEvent(
        **_source(job), error_type=job.job.error_reason or "", error=job.job.error or ""
    )


def _cancel_event(job: Installation) -> Event:
    return events.ModelInstallCancelledEvent(**_source(job))


_ERROR_FIELDS = frozenset({"error", "error_reason", "error_traceback"})
_PLAN_FIELDS = frozenset({"source_metadata", "local_path"})
_COPY_FIELDS = frozenset({"bytes", "total_bytes"})
_RESULT_FIELDS = frozenset({"config_out", "bytes", "total_bytes", "local_path"})
_CANCEL = Transition(_cancel_event, RowChange.REMOVED, FolderChange.REMOVED)
_PRUNE = Transition(None, RowChange.REMOVED, FolderChange.REMOVED)
_PAUSE = Transition(None, RowChange.SAVED)
_CONTINUE = Transition(None, RowChange.SAVED, clears=_ERROR_FIELDS)
_FAILED = Transition(_error_event, RowChange.SAVED, fields=_ERROR_FIELDS)

TABLE: dict[tuple[InstallStatus | None, InstallStatus | None], Transition] = {
    # (from, to): event, row, folder; None means no job
    # A new job is not started unless its row can be written; a recovered one has a row.
    (None, WAITING): Transition(None, RowChange.SAVED),
    (None, PAUSED): Transition(),  # recovered
    (None, ERROR): Transition(None, RowChange.UNCHANGED, fields=_ERROR_FIELDS),  # recovered
    (WAITING, WAITING): Transition(
        None, RowChange.SAVED, fields=_PLAN_FIELDS
    ),  # the plan is complete and the folder exists
    (WAITING, DOWNLOADING): Transition(_download_start_event, RowChange.SAVED),  # a single file has its name now
    (DOWNLOADING, DOWNLOADING): Transition(_download_progress_event),
    (DOWNLOADING, WAITING): _CONTINUE,  # one file is downloaded again
    (DOWNLOADING, DOWNLOADS_DONE): Transition(_downloads_complete_event),
    (DOWNLOADS_DONE, RUNNING): Transition(_start_event),
    (WAITING, RUNNING): Transition(_start_event),  # without downloads
    (RUNNING, RUNNING): Transition(_download_progress_event, fields=_COPY_FIELDS),  # files are copied
    (RUNNING, DOWNLOADS_DONE): Transition(),  # the server stops; the next start registers the files
    (RUNNING, COMPLETED): Transition(_complete_event, RowChange.REMOVED, FolderChange.REMOVED, fields=_RESULT_FIELDS),
    # The folder is kept for another attempt until the job is pruned.
    (RUNNING, ERROR): _FAILED,
    (WAITING, ERROR): _FAILED,
    (DOWNLOADING, ERROR): _FAILED,
    (WAITING, PAUSED): _PAUSE,
    (DOWNLOADING, PAUSED): _PAUSE,
    (PAUSED, WAITING): _CONTINUE,
    (ERROR, WAITING): _CONTINUE,  # only while the folder exists
    (WAITING, CANCELLED): _CANCEL,
    (DOWNLOADING, CANCELLED): _CANCEL,
    (DOWNLOADS_DONE, CANCELLED): _CANCEL,
    (PAUSED, CANCELLED): _CANCEL,
    (RUNNING, CANCELLED): _CANCEL,
    (COMPLETED, None): _PRUNE,
    (CANCELLED, None): _PRUNE,
    (ERROR, None): _PRUNE,
}


def apply(job: Installation, to: InstallStatus | None, emitter: Emitter, fields: dict[str, Any]) -> Transition:
    """Change the job's status and fields, emit the event, and return the transition.

    The caller applies the changes of row and folder, which take time. Raises TransitionRefused, leaving the job
    unchanged.
    """
    transition = TABLE.get((job.state, to))
    if transition is None or (to is WAITING and not job.has_folder):
        raise TransitionRefused(f"install job {job.job.id} cannot go from {job.state} to {to}")
    if fields.keys() != transition.fields:
        raise TransitionRefused(f"{job.state} to {to} requires the fields {set(transition.fields)}, got {set(fields)}")
    job.state = to
    if to is not None:
        job.job.status = to
    for name in transition.clears:
        setattr(job.job, name, None)
    for name, value in fields.items():
        setattr(job.job, name, value)
    if transition.folder is FolderChange.REMOVED:
        job.has_folder = False
    if transition.event is not None and (event := transition.event(job)) is not None:
        emitter.emit(event)
    return transition
