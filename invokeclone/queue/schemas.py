"""What the queue answers with, field for field as clients know it; it knows no SQL.

`SessionQueueItem` is published and never built on the way out: sessions leave as the text they are stored as.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from invokeclone.graph.session.execution import GraphExecutionState
from invokeclone.queue.batches import Batch, BatchDatum, NodeFieldValue
from invokeclone.workflows.schemas import WorkflowWithoutID

__all__ = ["Batch", "BatchDatum", "NodeFieldValue"]

Status = Literal["pending", "in_progress", "waiting", "completed", "failed", "canceled"]
STATUSES: tuple[Status, ...] = ("pending", "in_progress", "waiting", "completed", "failed", "canceled")
ACTIVE: tuple[Status, ...] = ("pending", "in_progress", "waiting")
TERMINAL: tuple[Status, ...] = ("completed", "failed", "canceled")

Time = datetime | str


class SessionQueueItem(BaseModel):
    """An item of the queue with its session."""

    item_id: int = Field(description="The item's number, never used again.")
    status: Status = Field(default="pending", description="How far the item is.")
    status_sequence: int | None = Field(default=None, description="Grows by one with each change of status.")
    priority: int = Field(default=0, description="Higher runs first.")
    batch_id: str = Field(description="The batch the item came of.")
    origin: str | None = Field(default=None, description="Where the batch came from; a client's own word.")
    destination: str | None = Field(default=None, description="What the results are for; a client's own word.")
    session_id: str = Field(description="The session's id.")
    error_type: str | None = Field(default=None, description="Class of the error the item failed with.")
    error_message: str | None = Field(default=None, description="Text of that error.")
    error_traceback: str | None = Field(default=None, description="Traceback of that error.")
    created_at: Time = Field(description="When the item was enqueued.")
    updated_at: Time = Field(description="When the item last changed.")
    started_at: Time | None = Field(default=None, description="When a worker took the item.")
    completed_at: Time | None = Field(default=None, description="When the item reached its end.")
    queue_id: str = Field(description="The queue the item belongs to.")
    user_id: str = Field(default="system", description="Who enqueued the item.")
    user_display_name: str | None = Field(default=None, description="That user's name.")
    user_email: str | None = Field(default=None, description="That user's address.")
    field_values: list[NodeFieldValue] | None = Field(default=None, description="Values put into the graph.")
    retried_from_item_id: int | None = Field(default=None, description="The first item that this one repeats.")
    device: str | None = Field(default=None, description="The device that runs or ran the item.")
    workflow_call_id: str | None = Field(default=None, description="The workflow call that made this item.")
    parent_item_id: int | None = Field(default=None, description="The item that made the call.")
    parent_session_id: str | None = Field(default=None, description="The session that made the call.")
    root_item_id: int | None = Field(default=None, description="The first item of the chain of calls.")
    workflow_call_depth: int | None = Field(default=None, description="How deep in the chain the item is.")
    session: GraphExecutionState = Field(description="The graph and how far it has run.")
    workflow: WorkflowWithoutID | None = Field(default=None, description="The workflow the graph was made from.")


class SessionQueueItemSummary(BaseModel):
    """An item of the queue without its session."""

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
    """The state of a queue: what runs now, and how many items are in each status."""

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
    """How many items of a batch are in each status."""

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
    """How many items with a destination are in each status."""

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
    """Whether the workers take items, and whether one is being run."""

    is_started: bool
    is_processing: bool


class SessionQueueAndProcessorStatus(BaseModel):
    """The state of a queue and of the workers."""

    queue: SessionQueueStatus
    processor: SessionProcessorStatus


class EnqueueBatchResult(BaseModel):
    """What became of a batch; `item_ids` are all items with the batch's id, the newest first."""

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


class RetryItemsResult(BaseModel):
    """The items that were repeated, by their own ids and not those of the repeats."""

    queue_id: str
    retried_item_ids: list[int]


class CancelByBatchIDsResult(BaseModel):
    """How many items were canceled."""

    canceled: int


class CancelByDestinationResult(BaseModel):
    """How many items were canceled."""

    canceled: int


class CancelAllExceptCurrentResult(BaseModel):
    """How many items were canceled."""

    canceled: int


class DeleteByDestinationResult(BaseModel):
    """How many items were deleted."""

    deleted: int


class DeleteAllExceptCurrentResult(BaseModel):
    """How many items were deleted."""

    deleted: int


class ClearResult(BaseModel):
    """How many items were deleted."""

    deleted: int


class PruneResult(BaseModel):
    """How many items were deleted."""

    deleted: int


class FieldIdentifier(BaseModel):
    """A field of a published workflow."""

    kind: Literal["input", "output"]
    node_id: str
    field_name: str
    user_label: str | None


class ValidationRunData(BaseModel):
    """What older clients may send along with a batch; it is read and not used."""

    workflow_id: str
    input_fields: list[FieldIdentifier]
    output_fields: list[FieldIdentifier]
