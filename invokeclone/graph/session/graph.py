"""A graph: nodes by id, and edges from an output field to an input field. The rules of its form are in `rules`.

It knows nothing of running; the order of nodes and edges is kept as it was given.
"""

from collections import defaultdict
from functools import cached_property
from typing import Annotated, Any
from uuid import uuid4

from pydantic import BaseModel, Field, WrapValidator

from invokeclone.graph.invocations.invocation import BaseInvocation
from invokeclone.graph.invocations.unions import AnyInvocation
from invokeclone.graph.session.edges import Edge, EdgeConnection, in_slices
from invokeclone.graph.session.rules import (
    CyclicalGraphError,
    DuplicateNodeIdError,
    InvalidEdgeError,
    NodeAlreadyInGraphError,
    NodeFieldNotFoundError,
    NodeIdMismatchError,
    NodeNotFoundError,
    check,
    check_new_edge,
)

__all__ = [
    "CyclicalGraphError",
    "DuplicateNodeIdError",
    "Edge",
    "EdgeConnection",
    "Graph",
    "InvalidEdgeError",
    "NodeAlreadyInGraphError",
    "NodeFieldNotFoundError",
    "NodeIdMismatchError",
    "NodeNotFoundError",
]


class Graph(BaseModel):
    """Nodes and the edges between them."""

    id: str = Field(default_factory=lambda: str(uuid4()), description="The graph's id")
    nodes: dict[str, AnyInvocation] = Field(default_factory=dict, description="The nodes, by id")
    edges: Annotated[list[Edge], WrapValidator(in_slices)] = Field(default_factory=list, description="The edges")

    def to_json_dict(self) -> dict[str, Any]:
        """Return the graph as JSON knows it, without nulls; node by node, so that other threads can run in between."""
        nodes = {node_id: node.model_dump(mode="json", exclude_none=True) for node_id, node in self.nodes.items()}
        return {"id": self.id, "nodes": nodes, "edges": [edge.model_dump() for edge in self.edges]}

    def validate_self(self) -> None:
        """Raise the first rule broken, as one of the ValueErrors in `rules`."""
        check(self.nodes, self.edges)

    def get_node(self, node_id: str) -> BaseInvocation:
        """Return a node by id; NodeNotFoundError."""
        try:
            return self.nodes[node_id]
        except KeyError:
            message = f"Node {node_id} not found in graph"
            raise NodeNotFoundError(message) from None

    def has_node(self, node_id: str) -> bool:
        """Whether a node with this id is there."""
        return node_id in self.nodes

    def add_node(self, node: BaseInvocation) -> None:
        """Add a node under its own id; NodeAlreadyInGraphError."""
        if node.id in self.nodes:
            message = f"Node with id {node.id} already exists in graph"
            raise NodeAlreadyInGraphError(message)
        self.nodes[node.id] = node

    def delete_node(self, node_id: str) -> None:
        """Take out a node, if it is there, and its edges."""
        if self.nodes.pop(node_id, None) is not None:
            self.edges = [e for e in self.edges if node_id not in (e.source.node_id, e.destination.node_id)]

    def add_edge(self, edge: Edge) -> None:
        """Add an edge; InvalidEdgeError when it is there already or a rule forbids it.

        Unlike a whole graph's check this one refuses a second edge onto one field (but for a collector's).
        """
        check_new_edge(self.nodes, self.edges, edge)
        self.edges.append(edge)

    def delete_edge(self, edge: Edge) -> None:
        """Take out an edge, if it is there."""
        self.edges = [present for present in self.edges if present != edge]


class Layout:
    """A graph's edges sorted by node, and its nodes in an order in which no edge points back. Made once per session."""

    def __init__(self, graph: Graph) -> None:
        self.inward: defaultdict[str, list[Edge]] = defaultdict(list)
        self.outward: defaultdict[str, list[Edge]] = defaultdict(list)
        for edge in graph.edges:
            self.inward[edge.destination.node_id].append(edge)
            self.outward[edge.source.node_id].append(edge)
        self._nodes: dict[str, Any] = graph.nodes

    @cached_property
    def order(self) -> list[str]:
        """Node ids, sources first, level by level."""
        waiting = {node_id: len(self.inward[node_id]) for node_id in self._nodes}
        order = [node_id for node_id, count in waiting.items() if count == 0]
        for node_id in order:
            for edge in self.outward[node_id]:
                waiting[edge.destination.node_id] -= 1
                if waiting[edge.destination.node_id] == 0:
                    order.append(edge.destination.node_id)
        return order

    def parents(self, node_id: str) -> list[str]:
        """Ids of the nodes with edges into this one, each once."""
        return list(dict.fromkeys(edge.source.node_id for edge in self.inward[node_id]))
