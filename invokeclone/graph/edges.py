"""An edge of a graph: from an output of a node to an input of another."""

from pydantic import BaseModel, ConfigDict, Field


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
