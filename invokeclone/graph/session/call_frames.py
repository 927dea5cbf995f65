"""Records of workflow calls in a session. The worker makes calls; the queue ends them."""

from typing import Any, Literal
from uuid import uuid4

from pydantic import BaseModel, Field


def _without_default(schema: dict[str, Any]) -> None:
    """Remove the default from the schema: the key is omitted when there is no value."""
    schema.pop("default", None)


class WorkflowCallFrame(BaseModel):
    """A call in progress."""

    prepared_call_node_id: str = Field(description="Id of the prepared copy of the calling node")
    source_call_node_id: str = Field(description="Id of the calling node in the graph")
    workflow_id: str = Field(description="Id of the called workflow")
    depth: int = Field(ge=1, description="Nesting depth of the call, from 1")


class WorkflowCallParentRef(BaseModel):
    """The call that started a session."""

    workflow_call_id: str = Field(description="Id of the call")
    parent_session_id: str = Field(description="Id of the calling session")
    prepared_call_node_id: str = Field(description="Id of the prepared copy of the calling node")
    source_call_node_id: str = Field(description="Id of the calling node in the graph")
    workflow_id: str = Field(description="Id of the called workflow")
    depth: int = Field(ge=1, description="Nesting depth of the call, from 1")


class WorkflowCallExecution(BaseModel):
    """A call and its status."""

    id: str = Field(default_factory=lambda: str(uuid4()), description="Id of the call")
    parent_session_id: str = Field(description="Id of the calling session")
    child_session_id: str | None = Field(
        default=None, description="Id of the first called session", json_schema_extra=_without_default
    )
    prepared_call_node_id: str = Field(description="Id of the prepared copy of the calling node")
    source_call_node_id: str = Field(description="Id of the calling node in the graph")
    workflow_id: str = Field(description="Id of the called workflow")
    depth: int = Field(ge=1, description="Nesting depth of the call, from 1")
    status: Literal["waiting_for_child", "running_child", "completed", "failed"] = Field(
        description="Status of the call"
    )
    error_message: str | None = Field(
        default=None, description="Error message, if the call failed", json_schema_extra=_without_default
    )
    expected_child_count: int = Field(default=1, ge=1, description="Number of called sessions")
    child_session_ids: list[str] = Field(default_factory=list, description="Ids of the called sessions")
    child_item_ids: list[int] = Field(default_factory=list, description="Ids of the queue items of the called sessions")
    completed_child_item_ids: list[int] = Field(default_factory=list, description="Ids of the completed queue items")
    child_outputs: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Returned values by session id")
    aggregated_values: dict[str, list[Any]] = Field(
        default_factory=dict, description="Returned values of all sessions, by key"
    )
