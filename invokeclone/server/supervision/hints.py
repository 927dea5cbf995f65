"""Hints for workers: notifications that the queue, images or models have changed. The database has the state."""

import collections
from collections.abc import Callable, Sequence
from typing import Any

from invokeclone.images.events import ImagesDeletedEvent
from invokeclone.kit.events import Event
from invokeclone.models.records.events import ModelsChangedEvent
from invokeclone.queue.events import (
    BatchEnqueuedEvent,
    ItemsClearedEvent,
    ProcessorResumedEvent,
    QueueItemsRetriedEvent,
    QueueItemStatusChangedEvent,
)
from invokeclone.queue.schemas import TERMINAL
from invokeclone.server.supervision.link import Message
from invokeclone.server.supervision.workers import Worker

REMEMBERED_CANCELS = 1000
MAX_NAMES = 50_000
"""Names of deleted images in one hint."""
EVENTS_WITH_HINTS = (
    BatchEnqueuedEvent, QueueItemsRetriedEvent, ProcessorResumedEvent, QueueItemStatusChangedEvent, ItemsClearedEvent,
    ImagesDeletedEvent, ModelsChangedEvent,
)  # fmt: skip


class Hints:
    """Sends hints to the workers of this server and to other servers on the same database."""

    def __init__(self, workers: Sequence[Worker], cancel_grace_s: float) -> None:
        """Send to `workers`, which may change; a canceled item has `cancel_grace_s` seconds to stop."""
        self._workers = workers
        self._canceled: collections.deque[int] = collections.deque(maxlen=REMEMBERED_CANCELS)
        self.cancel_grace_s = cancel_grace_s
        self.is_relaying = False
        """Whether the event that is being published comes from a worker: its own result is no cancel for it."""
        self.share: Callable[[Message], None] = lambda _hint: None
        """Called with each hint, for the workers of other servers."""

    def on_event(self, kind: type[Event], payload: dict[str, Any]) -> None:
        """Send the hint of an event."""
        match kind.name:
            case "batch_enqueued" | "queue_items_retried" | "processor_resumed":
                self.wake()
            case "queue_item_status_changed" if not self.is_relaying and payload.get("status") in TERMINAL:
                has_begun = payload.get("started_at") is not None
                self._send({"kind": "cancel", "item_id": payload["item_id"], "has_begun": has_begun})
            case "items_cleared":
                cleared = ("queue_id", "user_id", "last_item_id")
                self._send({"kind": "clear", **{name: payload[name] for name in cleared}})
                self.wake()
            case "images_deleted":
                names = payload.get("image_names", [])
                for start in range(0, len(names), MAX_NAMES):
                    self._send({"kind": "images_deleted", "names": names[start : start + MAX_NAMES]})
            case "models_changed":
                self._send({"kind": "models_changed", "keys": payload.get("keys", [])})

    def wake(self) -> None:
        """Notify all workers to check the queue."""
        self._send({"kind": "wake"})

    def _send(self, hint: Message) -> None:
        self.apply(hint)
        self.share(hint)

    def apply(self, hint: Message) -> None:
        """Pass a hint, of this server or another, to the workers of this server.

        A hint may come late, twice or in another order: it names the items that it is about, whose ids are never reused.
        """
        match hint:
            case {"kind": "cancel", "item_id": int(item_id), "has_begun": bool(has_begun)}:
                self._cancel(item_id, has_begun=has_begun)
            case {"kind": "clear", "queue_id": queue_id, "user_id": user_id, "last_item_id": int(last_item_id)}:
                self._clear(queue_id, user_id, last_item_id)
            case {"kind": "wake" | "images_deleted" | "models_changed"}:
                self.broadcast(hint)

    def broadcast(self, message: Message) -> None:
        """Send a message to the workers of this server."""
        for worker in self._workers:
            worker.send(message)

    def _clear(self, queue_id: str, user_id: str | None, last_item_id: int) -> None:
        """Stop the items of a cleared queue, or only those of one user; items that are newer were not cleared."""
        for worker in self._workers:
            if worker.item_id is None or worker.item_id > last_item_id:
                continue
            if worker.queue_id != queue_id or user_id not in (None, worker.user_id):
                continue
            worker.send({"kind": "cancel", "item_id": worker.item_id})
            worker.expect_end(worker.item_id, self.cancel_grace_s)

    def _cancel(self, item_id: int, *, has_begun: bool) -> None:
        """Stop a canceled item, whose row is updated already, in the worker that runs it or is about to.

        A worker whose GIL is held cannot report its item, so any seemingly idle worker may be running one that has
        started; one that still starts runs none.
        """
        self._canceled.append(item_id)
        self.broadcast({"kind": "cancel", "item_id": item_id})
        for worker in self._workers:
            if worker.item_id == item_id or (worker.item_id is None and worker.ready and has_begun):
                worker.expect_end(item_id, self.cancel_grace_s)

    def watch_cancel(self, worker: Worker) -> None:
        """Replace the worker unless its item stops in time, if the item was canceled before it was known to run."""
        if worker.item_id is not None and worker.item_id in self._canceled:
            worker.expect_end(worker.item_id, self.cancel_grace_s)
