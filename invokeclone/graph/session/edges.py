"""An edge of a graph: from an output of a node to an input of another."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler

SLICE = 200


def in_slices(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Validate a long list a slice at a time: between two, other threads can run (a validator for WrapValidator)."""
    if not isinstance(value, list) or len(value) <= SLICE:
        return validate(value)
    try:
        return [item for start in range(0, len(value), SLICE) for item in validate(value[start : start + SLICE])]
    except ValidationError:
        return validate(value)  # for the right places in the errors


class EdgeConnection(BaseModel):
    """One end of an edge."""

    model_config = ConfigDict(frozen=True)

    node_id: str = Field(description="The node's id")
    field: str = Field(description="The field of that node")

    def __str__(self) -> str:
        return f"{self.node_id}.{self.field}"


class Edge(BaseModel):
    """A value's way from an output to an input."""

    model_config = ConfigDict(frozen=True)

    source: EdgeConnection = Field(description="Where the value comes from")
    destination: EdgeConnection = Field(description="Where the value goes")

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination}"
