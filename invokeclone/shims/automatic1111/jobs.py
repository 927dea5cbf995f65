"""Running generations, for `progress`, `interrupt` and `skip`: each acts on the caller's oldest one."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from invokeclone.kit.errors import InvokeCloneError
from invokeclone.queue import service
from invokeclone.shims.runs import Run
from invokeclone.users.current import User


def timestamp() -> str:
    """Return the current time in A1111's format of job timestamps."""
    return datetime.now().astimezone().strftime("%Y%m%d%H%M%S")


@dataclass
class Job:
    """A generation that a client waits for."""

    run: Run
    steps: int
    """Steps per image."""
    task_id: str | None = None
    """The client's id of the job."""
    stamp: str = field(default_factory=timestamp)
    started_at: float = field(default_factory=time.monotonic)
    interrupted: bool = False
    skipped: bool = False

    async def interrupt(self) -> None:
        """Cancel all items that have not ended; the request returns the finished images."""
        self.interrupted = True
        await self.run.cancel()

    async def skip(self) -> None:
        """Cancel the current image, or the next one if none is running."""
        run = self.run
        index = min(run.ended_count, len(run.item_ids) - 1)
        item_id = run.latest.item_id if run.latest else run.item_ids[index]
        self.skipped = True
        with contextlib.suppress(InvokeCloneError):  # deleted in the meantime
            await service.cancel(run.resources, run.queue_id, item_id, user=run.user)

    @property
    def was_stopped_by_client(self) -> bool:
        """Whether images may be missing because the client interrupted or skipped."""
        return self.interrupted or self.skipped


class Jobs:
    """All running jobs."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    @contextlib.contextmanager
    def track(self, job: Job) -> Iterator[Job]:
        """Register a job for the duration of the block."""
        self._jobs.append(job)
        try:
            yield job
        finally:
            self._jobs.remove(job)

    def current(self, user: User) -> Job | None:
        """Return the user's oldest job."""
        return next((job for job in self._jobs if job.run.user.user_id == user.user_id), None)


def progress(job: Job | None, *, with_image: bool) -> dict[str, Any]:
    """Return the progress of a job in A1111's form; without a job, that nothing runs."""
    if job is None:
        return _progress_response(0.0, 0.0, _state(), None, None)
    run = job.run
    fraction = run.progress
    elapsed = time.monotonic() - job.started_at
    latest = run.latest
    step = round((latest.fraction or 0.0) * job.steps) if latest else 0
    state = _state(
        skipped=job.skipped,
        interrupted=job.interrupted,
        job=f"{min(run.ended_count + 1, len(run.item_ids))} out of {len(run.item_ids)}",
        job_count=len(run.item_ids),
        job_timestamp=job.stamp,
        job_no=run.ended_count,
        sampling_step=step,
        sampling_steps=job.steps,
    )
    preview = latest.preview.partition(",")[2] if with_image and latest and latest.preview else None
    return _progress_response(fraction, elapsed / fraction - elapsed if fraction else 0.0, state, preview, job.task_id)


def _progress_response(
    fraction: float, remaining: float, state: dict[str, Any], preview: str | None, task_id: str | None
) -> dict[str, Any]:
    return {
        "progress": fraction,
        "eta_relative": remaining,
        "state": state,
        "current_image": preview,
        "textinfo": None,
        "current_task": task_id,
    }


def _state(**overrides: Any) -> dict[str, Any]:
    return {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": "",
        "job_count": 0,
        "job_timestamp": "0",
        "job_no": 0,
        "sampling_step": 0,
        "sampling_steps": 0,
        **overrides,
    }
