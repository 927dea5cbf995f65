"""Events of the queue: batches, changes of status, and the execution of nodes.

Nodes and results are plain dicts, because these events are emitted for every node and step and the emitter already has
the dict. The published schema has the unions of node and output classes instead.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable
from operator import itemgetter
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, Field, WithJsonSchema

from invokeclone.graph.invocations.unions import MARK
from invokeclone.kit.events import Audience, Event
from invokeclone.queue.rows import REDACTED, Item
from invokeclone.queue.schemas import BatchStatus, SessionQueueStatus, Status

AnyNode = Annotated[dict[str, Any], WithJsonSchema({MARK: "nodes"})]
AnyOutput = Annotated[dict[str, Any], WithJsonSchema({MARK: "outputs"})]


class QueueEvent(Event):
    """Event of a queue."""

    audience: ClassVar[Audience] = "queue"

    queue_id: str


class QueueItemEvent(QueueEvent):
    """Event of an item."""

    item_id: int
    batch_id: str
    origin: str | None = None
    destination: str | None = None
    user_id: str = "system"


class QueueItemStatusChangedEvent(QueueItemEvent):
    """The status of an item has changed."""

    name: ClassVar[str] = "queue_item_status_changed"

    status: Status
    status_sequence: int | None = None
    error_type: str | None = None
    error_message: str | None = None
    error_traceback: str | None = None
    created_at: str
    updated_at: str
    started_at: str | None = None
    completed_at: str | None = None
    batch_status: BatchStatus
    queue_status: SessionQueueStatus
    session_id: str

    @classmethod
    def of(cls, item: Item, batch_status: BatchStatus, queue_status: SessionQueueStatus) -> Self:
        """Return the event for the current state of `item`."""
        return cls(
            queue_id=item.queue_id,
            item_id=item.item_id,
            batch_id=item.batch_id,
            origin=item.origin,
            destination=item.destination,
            user_id=item.user_id,
            status=item.status,
            status_sequence=item.status_sequence,
            error_type=item.error_type,
            error_message=item.error_message,
            error_traceback=item.error_traceback,
            created_at=item.created_at,
            updated_at=item.updated_at,
            started_at=item.started_at,
            completed_at=item.completed_at,
            batch_status=batch_status,
            queue_status=queue_status,
            session_id=item.session_id,
        )

    def redact(self) -> Self:
        """Return a copy with only the item's id, status and times, and the counts."""
        hidden_words = {"origin": None, "destination": None}
        batch = self.batch_status.model_copy(update={"batch_id": REDACTED, **hidden_words})
        current = {} if self.queue_status.item_id is None else {"item_id": None, "batch_id": None, "session_id": None}
        queue = self.queue_status.model_copy(update={**current, "user_pending": None, "user_in_progress": None})
        hidden = {"user_id": REDACTED, "batch_id": REDACTED, "session_id": REDACTED, **hidden_words}
        errors = {"error_type": None, "error_message": None, "error_traceback": None}
        return self.model_copy(update={**hidden, **errors, "batch_status": batch, "queue_status": queue})


class BatchEnqueuedEvent(QueueEvent):
    """A batch has been enqueued."""

    name: ClassVar[str] = "batch_enqueued"

    batch_id: str
    enqueued: int
    requested: int
    priority: int
    origin: str | None = None
    user_id: str = "system"

    def redact(self) -> Self:
        """Return a copy with only the counts and the priority."""
        return self.model_copy(update={"user_id": REDACTED, "batch_id": REDACTED, "origin": None})


def group_by_user(pairs: Iterable[tuple[int, str]]) -> dict[str, list[int]]:
    """Group the item ids of (item id, user id) pairs by user."""
    ids_by_user: defaultdict[str, list[int]] = defaultdict(list)
    for user_id, user_pairs in itertools.groupby(pairs, itemgetter(1)):
        ids_by_user[user_id] += map(itemgetter(0), user_pairs)
    return dict(ids_by_user)


class QueueItemsRetriedEvent(QueueEvent):
    """Items have been retried; the ids are those of the original items."""

    name: ClassVar[str] = "queue_items_retried"

    retried_item_ids: list[int]
    user_ids: list[str]
    retried_item_ids_by_user: dict[str, list[int]]

    @classmethod
    def of(cls, queue_id: str, items: list[tuple[int, str]]) -> Self:
        """Return the event for (item id, user id) pairs."""
        owned = group_by_user(items)
        ids = [item_id for item_id, _ in items]
        return cls(queue_id=queue_id, retried_item_ids=ids, user_ids=list(owned), retried_item_ids_by_user=owned)

    def redact(self) -> Self:
        """Return a copy without ids."""
        return self.model_copy(update={"retried_item_ids": [], "user_ids": [], "retried_item_ids_by_user": {}})

    def shares(self) -> dict[str, Event]:
        """Return a copy for each owner with only their own items."""
        return {
            user: self.model_copy(
                update={"retried_item_ids": ids, "user_ids": [user], "retried_item_ids_by_user": {user: ids}}
            )
            for user, ids in self.retried_item_ids_by_user.items()
        }


class QueueItemsCanceledEvent(QueueEvent):
    """Pending or waiting items have been canceled or deleted in bulk."""

    name: ClassVar[str] = "queue_items_canceled"

    canceled_item_ids: list[int]
    user_ids: list[str]
    canceled_item_ids_by_user: dict[str, list[int]]

    @classmethod
    def of(cls, queue_id: str, items: list[tuple[int, str]]) -> Self:
        """Return the event for (item id, user id) pairs."""
        owned = group_by_user(items)
        ids = [item_id for item_id, _ in items]
        return cls(queue_id=queue_id, canceled_item_ids=ids, user_ids=list(owned), canceled_item_ids_by_user=owned)

    def redact(self) -> Self:
        """Return a copy without ids."""
        return self.model_copy(update={"canceled_item_ids": [], "user_ids": [], "canceled_item_ids_by_user": {}})

    def shares(self) -> dict[str, Event]:
        """Return a copy for each owner with only their own items."""
        return {
            user: self.model_copy(
                update={"canceled_item_ids": ids, "user_ids": [user], "canceled_item_ids_by_user": {user: ids}}
            )
            for user, ids in self.canceled_item_ids_by_user.items()
        }


class QueueClearedEvent(QueueEvent):
    """A queue has been cleared of one user's items, or of all items if `user_id` is null."""

    name: ClassVar[str] = "queue_cleared"

    user_id: str | None = None

    def redact(self) -> Self:
        """Return a copy without the user."""
        return self.model_copy(update={"user_id": None if self.user_id is None else REDACTED})


class ItemsClearedEvent(Event):
    """All items of a queue, or of one user, up to an id were deleted; for the workers, not sent to clients."""

    name: ClassVar[str] = "items_cleared"
    audience: ClassVar[Audience] = "internal"

    queue_id: str
    user_id: str | None
    last_item_id: int


class ProcessorResumedEvent(Event):
    """The workers have been resumed; not sent to clients."""

    name: ClassVar[str] = "processor_resumed"
    audience: ClassVar[Audience] = "internal"


class InvocationEvent(QueueItemEvent):
    """Event of a node of an item; `invocation` is the prepared node, `invocation_source_id` its id in the graph."""

    audience: ClassVar[Audience] = "owner_and_admin"

    session_id: str
    invocation: AnyNode
    invocation_source_id: str


class InvocationStartedEvent(InvocationEvent):
    """A node has started."""

    name: ClassVar[str] = "invocation_started"


class ProgressImage(BaseModel):
    """Preview of an image in progress; width and height are those of the final image."""

    width: int = Field(ge=1)
    height: int = Field(ge=1)
    dataURL: str  # noqa: N815  (the name on the wire)


class InvocationProgressEvent(InvocationEvent):
    """Progress of a node; `percentage` is null if unknown."""

    name: ClassVar[str] = "invocation_progress"
    audience: ClassVar[Audience] = "owner"

    message: str
    percentage: float | None = Field(default=None, ge=0, le=1)
    image: ProgressImage | None = None
    device: str | None = None


class InvocationCompleteEvent(InvocationEvent):
    """A node has completed."""

    name: ClassVar[str] = "invocation_complete"

    result: AnyOutput


class InvocationErrorEvent(InvocationEvent):
    """A node has failed, and with it the item."""

    name: ClassVar[str] = "invocation_error"

    error_type: str
    error_message: str
    error_traceback: str
