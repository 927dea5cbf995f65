"""A workflow as the node editor saves it; the graph behind it is read elsewhere."""

from enum import StrEnum

from pydantic import BaseModel, Field, JsonValue


class WorkflowCategory(StrEnum):
    """Whose a workflow is: a user's, or one that comes with the application."""

    User = "user"
    Default = "default"


class WorkflowMeta(BaseModel):
    """Facts about a workflow's form."""

    version: str = Field(description="Version of the workflow's form.")
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
    nodes: list[dict[str, JsonValue]] = Field(description="The editor's nodes.")
    edges: list[dict[str, JsonValue]] = Field(description="The editor's edges.")
    form: dict[str, JsonValue] | None = Field(default=None, description="The form laid out for its user.")
