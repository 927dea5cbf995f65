"""The generations that run, for `progress`, `interrupt` and `skip`: each asks for the caller's own, the oldest first."""

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
    """Return the time in the form that A1111 gives jobs."""
    return datetime.now().astimezone().strftime("%Y%m%d%H%M%S")


@dataclass
class Job:
    """A generation that somebody waits for."""

    run: Run
    steps: int
    """Of one picture."""
    task_id: str | None = None
    """What the client calls it."""
    stamp: str = field(default_factory=timestamp)
    started_at: float = field(default_factory=time.monotonic)
    interrupted: bool = False
    skipped: bool = False

    async def interrupt(self) -> None:
        """Cancel all that has not ended; the request is answered with what is done."""
        self.interrupted = True
        await self.run.cancel()

    async def skip(self) -> None:
        """Cancel the picture that is being made, or is the next to be."""
        run = self.run
        index = min(run.ended_count, len(run.item_ids) - 1)
        item_id = run.latest.item_id if run.latest else run.item_ids[index]
        self.skipped = True
        with contextlib.suppress(InvokeCloneError):  # it was deleted meanwhile
            await service.cancel(run.resources, run.queue_id, item_id, user=run.user)

    @property
    def was_stopped_by_client(self) -> bool:
        """Tell whether pictures may be missing because the client wanted it."""
        return self.interrupted or self.skipped


class Jobs:
    """All that run now."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    @contextlib.contextmanager
    def track(self, job: Job) -> Iterator[Job]:
        """List a job while the block lasts."""
        self._jobs.append(job)
        try:
            yield job
        finally:
            self._jobs.remove(job)

    def current(self, user: User) -> Job | None:
        """Return the user's oldest job."""
        return next((job for job in self._jobs if job.run.user.user_id == user.user_id), None)


def progress(job: Job | None, *, with_image: bool) -> dict[str, Any]:
    """Return how far a job is, in A1111's form; without a job that nothing runs."""
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
