"""Follows batches of the queue for clients that wait: the server's events say that it is time to look, the rows how items are.

One task reads the rows of all batches that anybody follows, soon after an event and every `LOOK_AGAIN` seconds without one. It
belongs to no compatibility API.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit import log
from invokeclone.kit.events import Bus, Event
from invokeclone.kit.resources import Resources
from invokeclone.queue import store
from invokeclone.queue.events import (
    InvocationEvent,
    QueueClearedEvent,
    QueueEvent,
    QueueItemEvent,
    QueueItemsCanceledEvent,
)
from invokeclone.queue.rows import Item
from invokeclone.queue.schemas import TERMINAL

REFRESH_INTERVAL_S = 5.0
"""Seconds after which rows are read without any event."""

_log = log.get("shims")


class BatchObserver(Protocol):
    """Follows one batch."""

    def handle_event(self, kind: type[Event], payload: dict[str, Any]) -> None:
        """Take an event of an item of the batch, on the event loop."""
        ...

    async def refresh(self, connection: AsyncConnection, items: Sequence[Item]) -> None:
        """See the items of the batch as they are now, oldest first; none are left when it was deleted."""
        ...


class QueueObserver(Protocol):
    """Wants to know more of the queue than the batches that are followed."""

    @property
    def is_listening(self) -> bool:
        """Whether anybody is there to be told."""
        ...

    async def refresh(self, connection: AsyncConnection) -> None:
        """See the queue as it is now."""
        ...


class BatchFollower:
    """Who follows which batch; one for the server's life. All methods belong on the event loop."""

    def __init__(self, resources: Resources, bus: Bus) -> None:
        """Subscribe to the events of `bus`."""
        self._resources = resources
        self._batch_observers: dict[str, BatchObserver] = {}
        self._queue_observers: list[QueueObserver] = []
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        bus.subscribe(self._on_event)

    def follow(self, batch_id: str, observer: BatchObserver) -> None:
        """Have `watcher` take the batch's events and see its rows until `leave`."""
        self._batch_observers[batch_id] = observer

    def unfollow(self, batch_id: str) -> None:
        """Follow a batch no more."""
        self._batch_observers.pop(batch_id, None)

    def add_queue_observer(self, observer: QueueObserver) -> None:
        """Have `audience` look whenever rows are read, while it listens."""
        self._queue_observers.append(observer)

    def request_refresh(self) -> None:
        """Have the rows read."""
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch(), name="followed batches")

    async def stop(self) -> None:
        """Read no more rows; before the database is closed."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def _active_observers(self) -> list[QueueObserver]:
        return [observer for observer in self._queue_observers if observer.is_listening]

    @property
    def _is_needed(self) -> bool:
        return not self._stopped and bool(self._batch_observers or self._active_observers)

    def _on_event(self, kind: type[Event], payload: dict[str, Any]) -> None:
        if not issubclass(kind, QueueEvent) or not self._is_needed:
            return
        if (
            issubclass(kind, QueueItemEvent)
            and (observer := self._batch_observers.get(payload["batch_id"])) is not None
        ):
            observer.handle_event(kind, payload)
        if issubclass(kind, InvocationEvent):
            return
        if _may_end(kind, payload) or self._active_observers:
            self.request_refresh()

    async def _watch(self) -> None:
        while self._is_needed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), REFRESH_INTERVAL_S)
            self._changed.clear()
            try:
                async with self._resources.database.read() as connection:
                    await self._refresh(connection)
            except Exception:  # noqa: BLE001  (the next look comes whatever happened to this one)
                _log.exception("the rows of batches that clients wait for cannot be read")

    async def _refresh(self, connection: AsyncConnection) -> None:
        observers = dict(self._batch_observers)
        items: defaultdict[str, list[Item]] = defaultdict(list)
        if observers:
            for item in await store.list_of_batches(connection, observers):
                items[item.batch_id].append(item)
        for batch_id, observer in observers.items():
            if self._batch_observers.get(batch_id) is observer:
                await self._log_failure(observer.refresh(connection, items[batch_id]))
        for queue_observer in self._active_observers:
            await self._log_failure(queue_observer.refresh(connection))

    @staticmethod
    async def _log_failure(refresh: Any) -> None:
        try:
            await refresh
        except Exception:  # noqa: BLE001  (one client's trouble is not the others')
            _log.exception("a client cannot be told how its batch is")


def _may_end(kind: type[Event], payload: dict[str, Any]) -> bool:
    """Tell whether items may have ended or be gone."""
    if issubclass(kind, QueueItemEvent):
        return payload.get("status") in TERMINAL
    return issubclass(kind, QueueItemsCanceledEvent | QueueClearedEvent)
