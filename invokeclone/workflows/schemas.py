"""Schemas of workflows as the node editor saves them, and of their records in the library."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, JsonValue, TypeAdapter, WrapValidator

from invokeclone.graph.session.edges import in_slices
from invokeclone.kit.sliced_json import list_json, model_json

_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")

Objects = Annotated[list[dict[str, JsonValue]], WrapValidator(in_slices)]
_OBJECTS = TypeAdapter(list[dict[str, JsonValue]])


def _semantic(version: str) -> str:
    if not _VERSION.fullmatch(version):
        raise ValueError("not a semantic version such as 3.0.0")
    return version


class WorkflowCategory(StrEnum):
    """Category of a workflow: a user's, or a default workflow of the application."""

    User = "user"
    Default = "default"
    Project = "project"


class WorkflowMeta(BaseModel):
    """Format version and category of a workflow."""

    version: Annotated[str, AfterValidator(_semantic)] = Field(description="Version of the workflow format.")
    category: WorkflowCategory = Field(description="Category of the workflow.")


class ExposedField(BaseModel):
    """A node's field that the workflow exposes to its user."""

    nodeId: str  # noqa: N815  (the name on the wire)
    fieldName: str  # noqa: N815  (the name on the wire)


class WorkflowWithoutID(BaseModel):
    """A workflow without an id."""

    name: str = Field(description="Name of the workflow.")
    author: str = Field(description="Author.")
    description: str = Field(description="Description.")
    version: str = Field(description="Version of the workflow.")
    contact: str = Field(description="Contact of the author.")
    tags: str = Field(description="Tags, separated by commas.")
    notes: str = Field(description="Notes.")
    exposedFields: list[ExposedField] = Field(description="Fields exposed to the user.")  # noqa: N815
    meta: WorkflowMeta = Field(description="Format version and category.")
    nodes: Objects = Field(description="The editor's nodes.")
    edges: Objects = Field(description="The editor's edges.")
    form: dict[str, JsonValue] | None = Field(default=None, description="Form layout for the user.")
    is_published: bool | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Of InvokeAI 6.8.1; publishing is not supported.",
    )

    def as_json(self) -> str:
        """Return the same as `model_dump_json`, written in slices so that other threads can run in between."""
        return model_json(self, nodes=list_json(_OBJECTS, self.nodes), edges=list_json(_OBJECTS, self.edges))


class Workflow(WorkflowWithoutID):
    """A workflow of the library."""

    id: str = Field(description="Id of the workflow.")


class WorkflowCallCompatibilityReason(StrEnum):
    """Result of checking whether graphs can call a workflow."""

    Ok = "ok"
    MissingWorkflowReturn = "missing_workflow_return"
    MultipleWorkflowReturn = "multiple_workflow_return"
    UnsupportedNode = "unsupported_node"
    UnsupportedBatchInput = "unsupported_batch_input"
    InvalidGraph = "invalid_graph"
    InvalidInputs = "invalid_inputs"
    ExceedsCapacity = "exceeds_capacity"
    Unknown = "unknown"


class WorkflowCallCompatibility(BaseModel):
    """Whether graphs can call a workflow."""

    is_callable: bool
    reason: WorkflowCallCompatibilityReason
    message: str | None = None


Time = datetime | str


class _Record(BaseModel):
    """Record of a workflow. Times are in UTC."""

    workflow_id: str
    name: str
    created_at: Time
    updated_at: Time
    opened_at: Time | None = None
    user_id: str
    is_public: bool
    is_published: bool | None = None


class WorkflowRecordDTO(_Record):
    """A workflow and its record."""

    workflow: Workflow


class WorkflowRecordWithThumbnailDTO(WorkflowRecordDTO):
    """A workflow and its record, with the URL of its thumbnail and whether graphs can call it."""

    thumbnail_url: str | None = None
    call_saved_workflow_compatibility: WorkflowCallCompatibility | None = None


class WorkflowRecordListItemWithThumbnailDTO(_Record):
    """Record of a workflow in a list."""

    description: str
    category: WorkflowCategory
    tags: str
    thumbnail_url: str | None = None
    call_saved_workflow_compatibility: WorkflowCallCompatibility | None = None


class WorkflowRecordOrderBy(StrEnum):
    """Sort key of workflows."""

    CreatedAt = "created_at"
    UpdatedAt = "updated_at"
    OpenedAt = "opened_at"
    Name = "name"
    IsPublic = "is_public"
