"""How a session records calls of saved workflows; who makes them is the worker, who ends them the queue."""

from typing import Any, Literal
from uuid import uuid4

from pydantic import BaseModel, Field


def _without_default(schema: dict[str, Any]) -> None:
    """Clients are not told of the default: the key is left out where there is nothing to tell."""
    schema.pop("default", None)


class WorkflowCallFrame(BaseModel):
    """A call that is being made."""

    prepared_call_node_id: str = Field(description="The copy of the calling node")
    source_call_node_id: str = Field(description="The calling node")
    workflow_id: str = Field(description="The called workflow")
    depth: int = Field(ge=1, description="How deep the call is nested")


class WorkflowCallParentRef(BaseModel):
    """The call that a session was started by."""

    workflow_call_id: str = Field(description="The call's id")
    parent_session_id: str = Field(description="The calling session")
    prepared_call_node_id: str = Field(description="The copy of the calling node")
    source_call_node_id: str = Field(description="The calling node")
    workflow_id: str = Field(description="The called workflow")
    depth: int = Field(ge=1, description="How deep the call is nested")


class WorkflowCallExecution(BaseModel):
    """A call and how far it is."""

    id: str = Field(default_factory=lambda: str(uuid4()), description="The call's id")
    parent_session_id: str = Field(description="The calling session")
    child_session_id: str | None = Field(
        default=None, description="The called session", json_schema_extra=_without_default
    )
    prepared_call_node_id: str = Field(description="The copy of the calling node")
    source_call_node_id: str = Field(description="The calling node")
    workflow_id: str = Field(description="The called workflow")
    depth: int = Field(ge=1, description="How deep the call is nested")
    status: Literal["waiting_for_child", "running_child", "completed", "failed"] = Field(description="How far it is")
    error_message: str | None = Field(default=None, description="Why it failed", json_schema_extra=_without_default)
    expected_child_count: int = Field(default=1, ge=1, description="How many sessions were called")
    child_session_ids: list[str] = Field(default_factory=list, description="The called sessions")
    child_item_ids: list[int] = Field(default_factory=list, description="The called sessions' queue items")
    completed_child_item_ids: list[int] = Field(default_factory=list, description="Those that are done")
    child_outputs: dict[str, dict[str, Any]] = Field(default_factory=dict, description="What each returned")
    aggregated_values: dict[str, list[Any]] = Field(default_factory=dict, description="What all returned, by key")
