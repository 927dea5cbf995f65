"""Runs a batch for a waiting client: enqueues it, reports progress and results, cancels it when the client disconnects.

`batch_follower.py` supplies the events and rows. Does not depend on any one compatibility API.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from fastapi import Request

from invokeclone.kit.errors import FailedDependency, InvokeCloneError
from invokeclone.kit.events import Event
from invokeclone.kit.requests import services_of
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database
from invokeclone.queue import outbox, service, store
from invokeclone.queue.batches import Batch
from invokeclone.queue.events import (
    InvocationEvent,
    InvocationProgressEvent,
)
from invokeclone.queue.rows import Item
from invokeclone.queue.schemas import TERMINAL
from invokeclone.shims.batch_follower import BatchFollower, BatchKey
from invokeclone.users.current import User

Result = TypeVar("Result")
PROGRESS_BACKLOG = 64
"""Progress events that are kept for a slow reader; older ones are dropped."""


class RunFailed(InvokeCloneError):
    """An item failed. The client is told not to retry, because the same request would fail again."""

    headers: ClassVar[dict[str, str]] = {"x-should-retry": "false"}


class RunCanceled(InvokeCloneError):
    """Items were canceled before they completed."""

    status: ClassVar[int] = 409
    headers: ClassVar[dict[str, str]] = {"x-should-retry": "false"}

    def __init__(self) -> None:
        super().__init__("the generation was canceled")


class ClientDisconnected(FailedDependency):
    """The client disconnected before the response."""

    status: ClassVar[int] = 499


@dataclass(frozen=True)
class RunProgress:
    """Progress of an item."""

    item_id: int
    node: str
    message: str
    fraction: float | None
    """0..1 of the node; None if unknown."""
    preview: str | None
    """A preview image as a data URL."""


@dataclass(frozen=True)
class ItemResult:
    """An item that has ended, and the images that its nodes produced."""

    item: Item
    images: dict[str, list[str]]
    """Names of the images that are not intermediate, by node id in the graph."""

    @property
    def image_names(self) -> list[str]:
        """Names of all images."""
        return [name for names in self.images.values() for name in names]

    def require_success(self) -> None:
        """Raise RunFailed, with the reason, if the item failed."""
        if self.item.status == "failed":
            raise RunFailed(f"the generation failed: {self.item.error_message or self.item.error_type}")


@dataclass
class BatchProgress:
    """The progress of a batch in the queue, by its events and rows."""

    node_events: ClassVar[tuple[type[InvocationEvent], ...]] = (InvocationProgressEvent,)

    resources: Resources
    user: User
    batch_id: str
    item_ids: list[int] = field(default_factory=list)
    """In the order of the batch."""
    queue_id: str = service.DEFAULT_QUEUE
    latest: RunProgress | None = None
    ended_count: int = 0
    """Number of items that have ended."""

    @property
    def key(self) -> BatchKey:
        """The batch as its user's."""
        return BatchKey(self.user.user_id, self.batch_id)

    @property
    def has_ended(self) -> bool:
        """Whether all items have ended."""
        return self.ended_count >= len(self.item_ids)

    @property
    def progress(self) -> float:
        """Completed fraction of the batch, 0..1."""
        if self.has_ended:
            return 1.0
        current = self.latest.fraction or 0.0 if self.latest else 0.0
        return min(1.0, (self.ended_count + current) / len(self.item_ids))

    def handle_event(self, kind: type[Event], payload: dict[str, Any]) -> None:
        """Handle an event of an item of the batch."""
        if issubclass(kind, InvocationProgressEvent):
            self._record_progress(payload)
        elif payload.get("status") in TERMINAL:
            self.latest = None

    def _record_progress(self, payload: dict[str, Any]) -> None:
        image = payload.get("image")
        self.latest = RunProgress(
            item_id=payload["item_id"],
            node=payload["invocation_source_id"],
            message=payload["message"],
            fraction=payload.get("percentage"),
            preview=image["dataURL"] if image else None,
        )

    async def refresh(self, database: Database, items: Sequence[Item]) -> None:  # noqa: ARG002  (of BatchObserver)
        """Count the items that have ended; an item without a row was deleted."""
        active = {item.item_id for item in items if item.status not in TERMINAL}
        self.ended_count = sum(item_id not in active for item_id in self.item_ids)

    async def cancel(self) -> None:
        """Cancel all items that have not ended, last first, so that canceling one does not start the next."""
        for item_id in reversed(self.item_ids):
            with contextlib.suppress(InvokeCloneError):  # deleted in the meantime
                await service.cancel(self.resources, self.queue_id, item_id, user=self.user)


@dataclass
class Run(BatchProgress):
    """A batch in the queue, its progress and its results."""

    progress_events: asyncio.Queue[RunProgress] = field(default_factory=lambda: asyncio.Queue(PROGRESS_BACKLOG))
    _pending: list[int] = field(default_factory=list)
    """Items that had not ended at the last refresh, and those after them."""
    _results: list[ItemResult] = field(default_factory=list)
    _error: Exception | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def set_items(self, item_ids: Iterable[int]) -> None:
        """Set the ids of the enqueued items."""
        self.item_ids = sorted(item_ids)
        self._pending = list(self.item_ids)

    async def refresh(self, database: Database, items: Sequence[Item]) -> None:
        """Record the items that have ended."""
        await super().refresh(database, items)
        rows = {item.item_id: item for item in items}
        try:
            while self._pending and _is_over(row := rows.get(self._pending[0])):
                if row is not None:
                    self._results.append(ItemResult(row, await image_names_by_node(database, row)))
                del self._pending[0]
        except Exception as error:  # noqa: BLE001  (raised by `results`)
            self._error = error
        self._changed.set()

    def _record_progress(self, payload: dict[str, Any]) -> None:
        super()._record_progress(payload)
        assert self.latest is not None
        if self.progress_events.full():
            self.progress_events.get_nowait()
        self.progress_events.put_nowait(self.latest)

    async def results(self) -> AsyncIterator[ItemResult]:
        """Yield each item as it ends, in the order of the batch; items deleted in the meantime are left out."""
        position = 0
        while True:
            self._changed.clear()
            while position < len(self._results):
                yield self._results[position]
                position += 1
            if self._error is not None:
                raise self._error
            if not self._pending:
                return
            await self._changed.wait()

    async def iterate_image_names(self) -> AsyncIterator[str]:
        """Yield the names of the images as their items end, in the order of the batch.

        Raises RunFailed for the first item that failed, RunCanceled when one was canceled or deleted.
        """
        result_count = 0
        async for result in self.results():
            result_count += 1
            result.require_success()
            if result.item.status == "canceled":
                raise RunCanceled
            for name in result.image_names:
                yield name
        if result_count < len(self.item_ids):
            raise RunCanceled

    async def image_names(self) -> list[str]:
        """Wait for all items to end; return what `iterate_image_names` yields, and raise its errors."""
        return [name async for name in self.iterate_image_names()]


def _is_over(row: Item | None) -> bool:
    return row is None or row.status in TERMINAL


async def image_names_by_node(database: Database, item: Item) -> dict[str, list[str]]:
    """Return the names of an item's images that are not intermediate, by node id in the graph."""
    text = await store.get_session(database, item.item_id)
    return {} if text is None else outbox.image_names_by_node(text)


class Runs:
    """The runs that clients wait for; one instance per server."""

    def __init__(self, resources: Resources, follower: BatchFollower) -> None:
        self.resources = resources
        self._follower = follower
        self._runs: dict[BatchKey, Run] = {}
        self._cancellations: set[asyncio.Task[None]] = set()

    def for_user(self, user: User) -> list[Run]:
        """Return the user's open runs, oldest first."""
        return [run for run in self._runs.values() if run.user.user_id == user.user_id]

    async def enqueue(self, batch: Batch, user: User) -> Run:
        """Enqueue and follow a batch; the caller must `close` the run.

        Raises QueueFull, PendingQuotaReached or DailyQuotaReached, and enqueues nothing, when not all items fit.
        """
        run = Run(self.resources, user, batch.batch_id)
        self._runs[run.key] = run
        self._follower.follow(run.key, run)
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(self.close, run)
            result = await service.enqueue(self.resources, run.queue_id, batch, whole=True, user=user)
            run.set_items(result.item_ids)
            self._follower.request_refresh()
            cleanup.pop_all()
        return run

    def close(self, run: Run) -> None:
        """Stop following a run."""
        self._runs.pop(run.key, None)
        self._follower.unfollow(run.key)

    async def cancel(self, run: Run) -> None:
        """Cancel all items that have not ended, even when the calling task is being cancelled."""
        task = asyncio.create_task(run.cancel())
        self._cancellations.add(task)
        task.add_done_callback(self._cancellations.discard)
        await asyncio.shield(task)

    @contextlib.asynccontextmanager
    async def running(self, batch: Batch, user: User) -> AsyncIterator[Run]:
        """Enqueue a batch; cancel what has not ended when the block exits with an error, such as a disconnect."""
        run = await self.enqueue(batch, user)
        try:
            yield run
        except BaseException:
            await self.cancel(run)
            raise
        finally:
            self.close(run)


async def run_until_disconnect(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `work`; cancel it and raise ClientDisconnected when the client disconnects first.

    The request's body must have been read.
    """
    task = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait([task, disconnect], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnected("the client disconnected")
        return task.result()
    finally:
        for pending in (disconnect, task):
            await _cancel(pending)


async def _cancel(task: "asyncio.Future[Any]") -> None:
    if not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def runs_of(request: Request) -> Runs:
    """Return the application's Runs."""
    return services_of(request).get(Runs)
