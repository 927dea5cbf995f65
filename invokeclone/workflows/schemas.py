"""A workflow as the node editor saves it, and its record in the library; the graph behind it is read elsewhere."""

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
    """Whose a workflow is: a user's, or one that comes with the application."""

    User = "user"
    Default = "default"
    Project = "project"


class WorkflowMeta(BaseModel):
    """Facts about a workflow's form."""

    version: Annotated[str, AfterValidator(_semantic)] = Field(description="Version of the workflow's form.")
    category: WorkflowCategory = Field(description="Whose the workflow is.")


class ExposedField(BaseModel):
    """A node's field that the workflow offers to its user."""

    nodeId: str  # noqa: N815  (the name on the wire)
    fieldName: str  # noqa: N815  (the name on the wire)


class WorkflowWithoutID(BaseModel):
    """A workflow before the library has given it an id."""

    name: str = Field(description="The workflow's name.")
    author: str = Field(description="Who made it.")
    description: str = Field(description="What it does.")
    version: str = Field(description="Its own version.")
    contact: str = Field(description="How to reach the author.")
    tags: str = Field(description="Words to find it by, separated by commas.")
    notes: str = Field(description="Notes.")
    exposedFields: list[ExposedField] = Field(description="Fields offered to its user.")  # noqa: N815
    meta: WorkflowMeta = Field(description="Facts about its form.")
    nodes: Objects = Field(description="The editor's nodes.")
    edges: Objects = Field(description="The editor's edges.")
    form: dict[str, JsonValue] | None = Field(default=None, description="The form laid out for its user.")
    is_published: bool | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Of 6.8.1; nothing here publishes workflows.",
    )

    def as_json(self) -> str:
        """Return what `model_dump_json` does; in slices, so that other threads can run in between."""
        return model_json(self, nodes=list_json(_OBJECTS, self.nodes), edges=list_json(_OBJECTS, self.edges))


class Workflow(WorkflowWithoutID):
    """A workflow of the library."""

    id: str = Field(description="The workflow's id.")


class WorkflowCallCompatibilityReason(StrEnum):
    """Why a graph may call a workflow, or why not."""

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
    """Whether a graph may call a workflow."""

    is_callable: bool
    reason: WorkflowCallCompatibilityReason
    message: str | None = None


Time = datetime | str


class _Record(BaseModel):
    """What is known of a workflow beside itself. Times are UTC text."""

    workflow_id: str
    name: str
    created_at: Time
    updated_at: Time
    opened_at: Time | None = None
    user_id: str
    is_public: bool
    is_published: bool | None = None


class WorkflowRecordDTO(_Record):
    """A workflow with its record."""

    workflow: Workflow


class WorkflowRecordWithThumbnailDTO(WorkflowRecordDTO):
    """A workflow with its record, its picture's address and whether graphs may call it."""

    thumbnail_url: str | None = None
    call_saved_workflow_compatibility: WorkflowCallCompatibility | None = None


class WorkflowRecordListItemWithThumbnailDTO(_Record):
    """A workflow's record in a list."""

    description: str
    category: WorkflowCategory
    tags: str
    thumbnail_url: str | None = None
    call_saved_workflow_compatibility: WorkflowCallCompatibility | None = None


class WorkflowRecordOrderBy(StrEnum):
    """What workflows are sorted by."""

    CreatedAt = "created_at"
    UpdatedAt = "updated_at"
    OpenedAt = "opened_at"
    Name = "name"
    IsPublic = "is_public"
