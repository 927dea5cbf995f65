"""Schemas of the queue's responses.

`SessionQueueItem` only documents responses, which are built as text: sessions are returned as they are stored.
"""

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from invokeclone.graph.session.execution import GraphExecutionState
from invokeclone.queue.batches import Batch, BatchDatum, NodeFieldValue
from invokeclone.queue.reorder import QueuePosition
from invokeclone.workflows.schemas import WorkflowWithoutID

__all__ = ["Batch", "BatchDatum", "NodeFieldValue"]

Status = Literal["pending", "in_progress", "waiting", "completed", "failed", "canceled"]
STATUSES: tuple[Status, ...] = ("pending", "in_progress", "waiting", "completed", "failed", "canceled")
ACTIVE: tuple[Status, ...] = ("pending", "in_progress", "waiting")
TERMINAL: tuple[Status, ...] = ("completed", "failed", "canceled")

Time = datetime | str


class SessionQueueItem(BaseModel):
    """A queue item with its session."""

    item_id: int = Field(description="Id of the item; never reused.")
    status: Status = Field(default="pending", description="Status of the item.")
    status_sequence: int | None = Field(default=None, description="Incremented by 1 with each change of status.")
    priority: int = Field(default=0, description="Items with a higher priority run first.")
    batch_id: str = Field(description="Id of the item's batch.")
    origin: str | None = Field(default=None, description="Origin of the batch; chosen by the client.")
    destination: str | None = Field(default=None, description="Destination of the results; chosen by the client.")
    session_id: str = Field(description="Id of the session.")
    error_type: str | None = Field(default=None, description="Class of the error, if the item failed.")
    error_message: str | None = Field(default=None, description="Message of the error.")
    error_traceback: str | None = Field(default=None, description="Traceback of the error.")
    created_at: Time = Field(description="Time of enqueueing.")
    updated_at: Time = Field(description="Time of the last change.")
    started_at: Time | None = Field(default=None, description="Time at which a worker claimed the item.")
    completed_at: Time | None = Field(default=None, description="Time at which the item ended.")
    queue_id: str = Field(description="Name of the item's queue.")
    user_id: str = Field(default="system", description="Id of the user who enqueued the item.")
    user_display_name: str | None = Field(default=None, description="Display name of the user.")
    user_email: str | None = Field(default=None, description="Email address of the user.")
    field_values: list[NodeFieldValue] | None = Field(default=None, description="Values substituted into the graph.")
    retried_from_item_id: int | None = Field(
        default=None, description="Id of the original item, if this one is a retry."
    )
    device: str | None = Field(default=None, description="Device that runs or ran the item.")
    workflow_call_id: str | None = Field(default=None, description="Id of the workflow call that made the item.")
    parent_item_id: int | None = Field(default=None, description="Id of the calling item.")
    parent_session_id: str | None = Field(default=None, description="Id of the calling session.")
    root_item_id: int | None = Field(default=None, description="Id of the first item of the call chain.")
    workflow_call_depth: int | None = Field(default=None, description="Nesting depth of the workflow call.")
    session: GraphExecutionState = Field(description="The graph and its execution state.")
    workflow: WorkflowWithoutID | None = Field(default=None, description="The workflow that the graph was made from.")


class SessionQueueItemSummary(BaseModel):
    """A queue item without its session."""

    item_id: int
    created_at: Time
    status: Status
    device: str | None = None
    started_at: Time | None
    completed_at: Time | None
    origin: str | None
    destination: str | None
    batch_id: str
    user_id: str
    user_display_name: str | None
    user_email: str | None
    field_values: list[NodeFieldValue] | None
    parent_item_id: int | None


class SessionQueueStatus(BaseModel):
    """The status of a queue: the current item, and the numbers of items by status."""

    queue_id: str
    item_id: int | None
    batch_id: str | None
    session_id: str | None
    pending: int
    in_progress: int
    waiting: int
    completed: int
    failed: int
    canceled: int
    total: int
    user_pending: int | None = None
    user_in_progress: int | None = None


class BatchStatus(BaseModel):
    """Numbers of a batch's items by status."""

    queue_id: str
    batch_id: str
    origin: str | None
    destination: str | None
    pending: int
    in_progress: int
    waiting: int
    completed: int
    failed: int
    canceled: int
    total: int


class SessionQueueCountsByDestination(BaseModel):
    """Numbers of items with a destination by status."""

    queue_id: str
    destination: str
    pending: int
    in_progress: int
    waiting: int
    completed: int
    failed: int
    canceled: int
    total: int


class SessionProcessorStatus(BaseModel):
    """Whether the workers take items, and whether an item is running."""

    is_started: bool
    is_processing: bool


class SessionQueueAndProcessorStatus(BaseModel):
    """The status of a queue and of the workers."""

    queue: SessionQueueStatus
    processor: SessionProcessorStatus


class EnqueueBatchResult(BaseModel):
    """The result of enqueueing a batch; `item_ids` are all items with the batch's id, newest first."""

    queue_id: str
    enqueued: int
    requested: int
    batch: Batch
    priority: int
    item_ids: list[int]


class ItemIdsResult(BaseModel):
    """The ids of a queue's items, in order."""

    item_ids: list[int]
    total_count: int


class MoveItemsRequest(BaseModel):
    """Pending items, and where to move them: exactly one of `before`, `after` and `to`."""

    model_config = ConfigDict(extra="forbid")

    item_ids: list[int] = Field(min_length=1, max_length=1000, description="Ids of the items, in their new order.")
    before: int | None = Field(default=None, description="Id of a pending item before which they are moved.")
    after: int | None = Field(default=None, description="Id of a pending item after which they are moved.")
    to: Literal["front", "end"] | None = Field(default=None, description="The end of the queue they are moved to.")

    @model_validator(mode="after")
    def _has_one_position(self) -> Self:
        if [self.before, self.after, self.to].count(None) != 2:  # noqa: PLR2004  (all but one)
            raise ValueError("give exactly one of before, after and to")
        return self

    @property
    def position(self) -> QueuePosition:
        """The position."""
        if self.before is not None:
            return QueuePosition("before", self.before)
        if self.after is not None:
            return QueuePosition("after", self.after)
        return QueuePosition(self.to or "front")


class RetryItemsResult(BaseModel):
    """Ids of the original items that were retried."""

    queue_id: str
    retried_item_ids: list[int]


class CancelByBatchIDsResult(BaseModel):
    """Number of canceled items."""

    canceled: int


class CancelByDestinationResult(BaseModel):
    """Number of canceled items."""

    canceled: int


class CancelAllExceptCurrentResult(BaseModel):
    """Number of canceled items."""

    canceled: int


class DeleteByDestinationResult(BaseModel):
    """Number of deleted items."""

    deleted: int


class DeleteAllExceptCurrentResult(BaseModel):
    """Number of deleted items."""

    deleted: int


class ClearResult(BaseModel):
    """Number of deleted items."""

    deleted: int


class PruneResult(BaseModel):
    """Number of deleted items."""

    deleted: int


class FieldIdentifier(BaseModel):
    """A field of a published workflow."""

    kind: Literal["input", "output"]
    node_id: str
    field_name: str
    user_label: str | None


class ValidationRunData(BaseModel):
    """Sent with a batch by older clients; ignored."""

    workflow_id: str
    input_fields: list[FieldIdentifier]
    output_fields: list[FieldIdentifier]
