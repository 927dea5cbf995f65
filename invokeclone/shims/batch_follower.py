"""Follows batches of the queue for clients that wait: the server's events say that it is time to look, the rows how items are.

One task reads the rows of all batches that anybody follows, soon after an event and every `LOOK_AGAIN` seconds without one. It
belongs to no compatibility API.
"""

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit import log
from invokeclone.kit.events import Bus, Event
from invokeclone.kit.resources import Resources
from invokeclone.queue import store
from invokeclone.queue.events import (
    BatchEnqueuedEvent,
    InvocationEvent,
    QueueClearedEvent,
    QueueItemEvent,
    QueueItemsCanceledEvent,
    QueueItemsRetriedEvent,
    QueueItemStatusChangedEvent,
)
from invokeclone.queue.rows import Item
from invokeclone.queue.schemas import TERMINAL

REFRESH_INTERVAL_S = 5.0
"""Seconds after which rows are read without any event."""

CHANGES = (
    BatchEnqueuedEvent, QueueItemStatusChangedEvent, QueueItemsRetriedEvent, QueueItemsCanceledEvent, QueueClearedEvent,
)  # fmt: skip
"""Events after which other items are in the queue, or in another state."""

_log = log.get("shims")


class BatchObserver(Protocol):
    """Follows one batch."""

    node_events: ClassVar[tuple[type[InvocationEvent], ...]]
    """The events of running nodes that it takes; it takes every change of an item's status, too."""

    def handle_event(self, kind: type[Event], payload: dict[str, Any]) -> None:
        """Take an event of an item of the batch, on the event loop."""
        ...

    async def refresh(self, connection: AsyncConnection, items: Sequence[Item]) -> None:
        """See the items of the batch as they are now, oldest first; none are left when it was deleted."""
        ...


class QueueObserver(Protocol):
    """Wants to know more of the queue than the batches that are followed."""

    async def refresh(self, connection: AsyncConnection) -> None:
        """See the queue as it is now."""
        ...


class BatchFollower:
    """Who follows which batch; one for the server's life. All methods belong on the event loop.

    It listens to events while anybody follows a batch or the queue.
    """

    def __init__(self, resources: Resources, bus: Bus) -> None:
        """Follow batches by the events of `bus`."""
        self._bus = bus
        self._kinds: frozenset[type[Event]] = frozenset()
        self._node_events: Counter[type[Event]] = Counter()
        """How many watchers take each kind of event of nodes."""
        self._resources = resources
        self._batch_observers: dict[str, BatchObserver] = {}
        self._queue_observers: list[QueueObserver] = []
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    def follow(self, batch_id: str, observer: BatchObserver) -> None:
        """Have `watcher` take the batch's events and see its rows until `unfollow`."""
        self.unfollow(batch_id)
        self._batch_observers[batch_id] = observer
        self._node_events.update(observer.node_events)
        self._listen()

    def unfollow(self, batch_id: str) -> None:
        """Follow a batch no more."""
        if (observer := self._batch_observers.pop(batch_id, None)) is not None:
            self._node_events.subtract(observer.node_events)
        self._listen()

    def add_queue_observer(self, observer: QueueObserver) -> None:
        """Have `audience` look whenever rows are read, until `remove_queue_observer`; a second call does nothing."""
        if observer not in self._queue_observers:
            self._queue_observers.append(observer)
        self._listen()

    def remove_queue_observer(self, observer: QueueObserver) -> None:
        """Have `audience` look no more; nothing happens when it did not."""
        if observer in self._queue_observers:
            self._queue_observers.remove(observer)
        self._listen()

    def request_refresh(self) -> None:
        """Have the rows read."""
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch(), name="followed batches")

    async def stop(self) -> None:
        """Read no more rows; before the database is closed."""
        self._stopped = True
        self._listen()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def _is_needed(self) -> bool:
        return not self._stopped and bool(self._batch_observers or self._queue_observers)

    def _listen(self) -> None:
        """Take the events that are needed now."""
        kinds: frozenset[type[Event]] = frozenset()
        if self._is_needed:
            kinds = frozenset([*CHANGES, *(kind for kind, number in self._node_events.items() if number)])
        if kinds != self._kinds:
            self._bus.unsubscribe(self._on_event)
            if kinds:
                self._bus.subscribe(self._on_event, *kinds)
            self._kinds = kinds

    def _on_event(self, kind: type[Event], payload: dict[str, Any]) -> None:
        observer = self._batch_observers.get(payload["batch_id"]) if issubclass(kind, QueueItemEvent) else None
        if issubclass(kind, InvocationEvent):
            if observer is not None and issubclass(kind, observer.node_events):
                observer.handle_event(kind, payload)
            return
        if observer is not None:
            observer.handle_event(kind, payload)
        if _may_end(kind, payload) or self._queue_observers:
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
        for queue_observer in list(self._queue_observers):
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
