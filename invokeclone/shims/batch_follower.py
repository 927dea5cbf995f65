"""Follows queue batches for waiting clients: events trigger a read of the rows, and the rows give the items' state.

One task reads the rows of all followed batches, soon after an event and every `REFRESH_INTERVAL_S` seconds without one.
Does not depend on any one compatibility API.
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
"""Seconds after which rows are read without an event."""

_log = log.get("shims")


class BatchObserver(Protocol):
    """Observer of one batch."""

    def handle_event(self, kind: type[Event], payload: dict[str, Any]) -> None:
        """Handle an event of an item of the batch, on the event loop."""
        ...

    async def refresh(self, connection: AsyncConnection, items: Sequence[Item]) -> None:
        """Handle the current items of the batch, oldest first; there are none when the batch was deleted."""
        ...


class QueueObserver(Protocol):
    """Observer of the whole queue."""

    @property
    def is_listening(self) -> bool:
        """Whether the observer needs refreshes at the moment."""
        ...

    async def refresh(self, connection: AsyncConnection) -> None:
        """Handle the current state of the queue."""
        ...


class BatchFollower:
    """The followed batches and their observers; one per server. Its methods must be called on the event loop."""

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
        """Pass the batch's events and rows to `observer` until `unfollow`."""
        self._batch_observers[batch_id] = observer

    def unfollow(self, batch_id: str) -> None:
        """Stop following a batch."""
        self._batch_observers.pop(batch_id, None)

    def add_queue_observer(self, observer: QueueObserver) -> None:
        """Refresh `observer` whenever rows are read and it is listening."""
        self._queue_observers.append(observer)

    def request_refresh(self) -> None:
        """Schedule a read of the rows."""
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch(), name="followed batches")

    async def stop(self) -> None:
        """Stop reading rows; called before the database is closed."""
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
            except Exception:  # noqa: BLE001  (the task must survive any error of one refresh)
                _log.exception("cannot read the rows of the followed batches")

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
        except Exception:  # noqa: BLE001  (an error of one observer must not affect the others)
            _log.exception("an observer of the queue failed")


def _may_end(kind: type[Event], payload: dict[str, Any]) -> bool:
    """Return whether an event may mean that items have ended or were deleted."""
    if issubclass(kind, QueueItemEvent):
        return payload.get("status") in TERMINAL
    return issubclass(kind, QueueItemsCanceledEvent | QueueClearedEvent)
