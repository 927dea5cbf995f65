"""Running generations, for `progress`, `interrupt` and `skip`: each acts on the caller's oldest one.

Each of several servers on one database knows the generations of all: it follows the batches of the others, of which it
gets an event or, if that was lost, reads the rows.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.requests import HTTPConnection

from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.events import Bus, Event
from invokeclone.kit.requests import services_of
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database
from invokeclone.queue import service
from invokeclone.queue.rows import Item
from invokeclone.shims.automatic1111 import store
from invokeclone.shims.automatic1111.events import GenerationStartedEvent, GenerationStoppedEvent
from invokeclone.shims.batch_follower import BatchFollower, BatchKey
from invokeclone.shims.runs import BatchProgress
from invokeclone.users.current import User


def timestamp(moment: datetime | None = None) -> str:
    """Return a time, by default the current one, in A1111's format of job timestamps."""
    return (moment or datetime.now(UTC)).astimezone().strftime("%Y%m%d%H%M%S")


@dataclass
class Job:
    """A generation that a client waits for."""

    run: BatchProgress
    steps: int
    """Steps per image; 0 if unknown."""
    task_id: str | None = None
    """The client's id of the job."""
    stamp: str = field(default_factory=timestamp)
    started_at: float = field(default_factory=time.monotonic)
    interrupted: bool = False
    skipped: bool = False

    async def interrupt(self) -> None:
        """Cancel all items that have not ended; the request returns the finished images."""
        self.interrupted = True
        self._report_stop()
        await self.run.cancel()

    async def skip(self) -> None:
        """Cancel the current image, or the next one if none is running."""
        run = self.run
        index = min(run.ended_count, len(run.item_ids) - 1)
        item_id = run.latest.item_id if run.latest else run.item_ids[index]
        self.skipped = True
        self._report_stop()
        with contextlib.suppress(InvokeCloneError):  # deleted in the meantime
            await service.cancel(run.resources, run.queue_id, item_id, user=run.user)

    def _report_stop(self) -> None:
        """Report why items are about to be canceled to the server that has the request, before they are."""
        batch = self.run.key
        event = GenerationStoppedEvent(
            batch_id=batch.batch_id, user_id=batch.user_id, interrupted=self.interrupted, skipped=self.skipped
        )
        self.run.resources.events.emit(event)

    @property
    def was_stopped_by_client(self) -> bool:
        """Whether images may be missing because the client interrupted or skipped."""
        return self.interrupted or self.skipped


class _PeerProgress(BatchProgress):
    """The progress of a batch for which a client waits on another server."""

    def __init__(self, jobs: "Jobs", user: User, batch_id: str, item_ids: list[int]) -> None:
        super().__init__(jobs.resources, user, batch_id, item_ids)
        self._jobs = jobs

    async def refresh(self, database: Database, items: Sequence[Item]) -> None:
        """Count the items that have ended, and forget the job when all have."""
        await super().refresh(database, items)
        if self.has_ended:
            self._jobs.forget(self.key)


class Jobs:
    """All running jobs, of other servers too; one instance per server."""

    def __init__(self, resources: Resources, follower: BatchFollower, bus: Bus) -> None:
        self.resources = resources
        self._follower = follower
        self._jobs: dict[BatchKey, Job] = {}
        if resources.database.is_shared:
            bus.subscribe(self._on_event, GenerationStartedEvent, GenerationStoppedEvent)

    @contextlib.contextmanager
    def track(self, job: Job) -> Iterator[Job]:
        """Register a job for the duration of the block."""
        run = job.run
        self._jobs[run.key] = job
        try:
            event = GenerationStartedEvent(
                batch_id=run.batch_id,
                item_ids=run.item_ids,
                user_id=run.user.user_id,
                steps=job.steps,
                task_id=job.task_id,
                stamp=job.stamp,
            )
            self.resources.events.emit(event)
            yield job
        finally:
            self._jobs.pop(run.key, None)

    async def find(self, user: User) -> Job | None:
        """Return the user's oldest job; on a shared database, also one of which no event has come."""
        jobs = [job for job in self._jobs.values() if job.run.user.user_id == user.user_id]
        if jobs or not self.resources.database.is_shared:
            return min(jobs, key=lambda job: job.run.item_ids[0], default=None)
        limit = self.resources.settings.limits.request_images
        async with self.resources.database.read() as connection:
            items = await store.oldest_batch(connection, user.user_id, limit)
        if not items:
            return None
        batch = BatchKey(user.user_id, items[0].batch_id)
        if self._follower.follows(batch):  # an own one, which is about to be tracked
            return self._jobs.get(batch)
        run = _PeerProgress(self, user, batch.batch_id, [item.item_id for item in items])
        await run.refresh(self.resources.database, items)
        created_at = datetime.fromisoformat(items[0].created_at).replace(tzinfo=UTC)
        age = (datetime.now(UTC) - created_at).total_seconds()
        return self._follow(Job(run, 0, stamp=timestamp(created_at), started_at=time.monotonic() - max(0.0, age)))

    def forget(self, batch: BatchKey) -> None:
        """Forget a job of another server."""
        self._follower.unfollow(batch)
        self._jobs.pop(batch, None)

    def _follow(self, job: Job) -> Job:
        """Add a job of another server until its items have ended."""
        self._jobs[job.run.key] = job
        self._follower.follow(job.run.key, job.run)
        self._follower.request_refresh()
        return job

    def _on_event(self, kind: type[Event], payload: dict[str, Any]) -> None:
        job = self._jobs.get(BatchKey(payload["user_id"], payload["batch_id"]))
        if kind is GenerationStartedEvent:
            event = GenerationStartedEvent.model_validate(payload)
            if job is not None and not isinstance(job.run, _PeerProgress):  # this server's own
                return
            run = _PeerProgress(self, User(user_id=event.user_id), event.batch_id, event.item_ids)
            self._follow(Job(run, event.steps, event.task_id, event.stamp))
        elif job is not None:
            job.interrupted, job.skipped = payload["interrupted"], payload["skipped"]


def jobs_of(connection: HTTPConnection) -> Jobs:
    """Return the application's Jobs."""
    return services_of(connection).get(Jobs)


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
