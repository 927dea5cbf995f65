"""Follows queue batches for waiting clients: events trigger a read of the rows, and the rows give the items' state.

One task reads the rows of all followed batches, soon after an event and every `REFRESH_INTERVAL_S` seconds without one.
Does not depend on any one compatibility API.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from invokeclone.kit import log
from invokeclone.kit.events import Bus, Event
from invokeclone.kit.process.periodic import PeriodicTask
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database
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
"""Seconds after which rows are read without an event."""

CHANGES = (
    BatchEnqueuedEvent, QueueItemStatusChangedEvent, QueueItemsRetriedEvent, QueueItemsCanceledEvent, QueueClearedEvent,
)  # fmt: skip
"""Events after which the queue has other items, or items have another state."""

_log = log.get("shims")


class BatchKey(NamedTuple):
    """A user's batch: several users may have items with one batch id, because clients choose it."""

    user_id: str
    batch_id: str


class BatchObserver(Protocol):
    """Observer of one batch."""

    node_events: ClassVar[tuple[type[InvocationEvent], ...]]
    """The node events it handles; it also gets every change of an item's status."""

    def handle_event(self, kind: type[Event], payload: dict[str, Any]) -> None:
        """Handle an event of an item of the batch, on the event loop."""
        ...

    async def refresh(self, database: Database, items: Sequence[Item]) -> None:
        """Handle the current items of the batch, oldest first; there are none when the batch was deleted."""
        ...


class QueueObserver(Protocol):
    """Observer of the whole queue."""

    async def refresh(self, database: Database) -> None:
        """Handle the current state of the queue."""
        ...


class BatchFollower:
    """The followed batches and their observers; one per server. Its methods must be called on the event loop.

    It subscribes to events while a batch or the queue is followed.
    """

    def __init__(self, resources: Resources, bus: Bus) -> None:
        """Follow batches by the events of `bus`."""
        self._bus = bus
        self._kinds: frozenset[type[Event]] = frozenset()
        self._resources = resources
        self._batch_observers: dict[BatchKey, BatchObserver] = {}
        self._queue_observers: list[QueueObserver] = []
        failure = "cannot read the rows of the followed batches"
        self._refreshes = PeriodicTask(
            "follow_batches", self._read, REFRESH_INTERVAL_S, failure=failure, logger=_log, at_once=False
        )
        self._stopped = False

    def follow(self, batch: BatchKey, observer: BatchObserver) -> None:
        """Pass the events and rows of a user's batch to `observer` until `unfollow`."""
        self.unfollow(batch)
        self._batch_observers[batch] = observer
        self._listen()

    def unfollow(self, batch: BatchKey) -> None:
        """Stop following a batch."""
        self._batch_observers.pop(batch, None)
        self._listen()

    def follows(self, batch: BatchKey) -> bool:
        """Return whether the batch has an observer."""
        return batch in self._batch_observers

    def add_queue_observer(self, observer: QueueObserver) -> None:
        """Refresh `observer` whenever rows are read, until `remove_queue_observer`; a second call does nothing."""
        if observer not in self._queue_observers:
            self._queue_observers.append(observer)
        self._listen()

    def remove_queue_observer(self, observer: QueueObserver) -> None:
        """Stop refreshing `observer`; does nothing for an unknown one."""
        if observer in self._queue_observers:
            self._queue_observers.remove(observer)
        self._listen()

    def request_refresh(self) -> None:
        """Schedule a read of the rows."""
        if self._is_needed:
            self._refreshes.start()
            self._refreshes.wake()

    async def stop(self) -> None:
        """Stop reading rows; called before the database is closed."""
        self._stopped = True
        self._listen()
        await self._refreshes.stop()

    @property
    def _is_needed(self) -> bool:
        return not self._stopped and bool(self._batch_observers or self._queue_observers)

    def _listen(self) -> None:
        """Subscribe to the events that the current observers need."""
        kinds: frozenset[type[Event]] = frozenset()
        if self._is_needed:
            node_events = (kind for observer in self._batch_observers.values() for kind in observer.node_events)
            kinds = frozenset([*CHANGES, *node_events])
        if kinds != self._kinds:
            self._bus.unsubscribe(self._on_event)
            if kinds:
                self._bus.subscribe(self._on_event, *kinds)
            self._kinds = kinds

    def _on_event(self, kind: type[Event], payload: dict[str, Any]) -> None:
        observer = None
        if issubclass(kind, QueueItemEvent):
            observer = self._batch_observers.get(BatchKey(payload["user_id"], payload["batch_id"]))
        if issubclass(kind, InvocationEvent):
            if observer is not None and issubclass(kind, observer.node_events):
                observer.handle_event(kind, payload)
            return
        if observer is not None:
            observer.handle_event(kind, payload)
        if _may_end(kind, payload) or self._queue_observers:
            self.request_refresh()

    async def _read(self) -> None:
        if self._is_needed:
            await self._refresh(self._resources.database)

    async def _refresh(self, database: Database) -> None:
        observers = dict(self._batch_observers)
        items: defaultdict[BatchKey, list[Item]] = defaultdict(list)
        if observers:
            for item in await store.list_of_batches(database, dict.fromkeys(batch.batch_id for batch in observers)):
                items[BatchKey(item.user_id, item.batch_id)].append(item)
        for batch, observer in observers.items():
            if self._batch_observers.get(batch) is observer:
                await self._log_failure(observer.refresh(database, items[batch]))
        for queue_observer in list(self._queue_observers):
            await self._log_failure(queue_observer.refresh(database))

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
