"""Edges of a graph, from an output of a node to an input of another."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler

SLICE = 200


def in_slices(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Validate a long list in slices, so that other threads can run in between. For use with WrapValidator."""
    if not isinstance(value, list) or len(value) <= SLICE:
        return validate(value)
    try:
        return [item for start in range(0, len(value), SLICE) for item in validate(value[start : start + SLICE])]
    except ValidationError:
        return validate(value)  # for correct list indices in the errors


class EdgeConnection(BaseModel):
    """One end of an edge."""

    model_config = ConfigDict(frozen=True)

    node_id: str = Field(description="Id of the node")
    field: str = Field(description="Name of the node's field")

    def __str__(self) -> str:
        return f"{self.node_id}.{self.field}"


class Edge(BaseModel):
    """A connection from an output to an input."""

    model_config = ConfigDict(frozen=True)

    source: EdgeConnection = Field(description="The output")
    destination: EdgeConnection = Field(description="The input")

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination}"
