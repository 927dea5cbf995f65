"""Graphs: nodes by id, and edges from an output field to an input field. `rules` validates them.

The order of nodes and edges is preserved.
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

    id: str = Field(default_factory=lambda: str(uuid4()), description="Id of the graph")
    nodes: dict[str, AnyInvocation] = Field(default_factory=dict, description="The nodes by id")
    edges: Annotated[list[Edge], WrapValidator(in_slices)] = Field(default_factory=list, description="The edges")

    def to_json_dict(self) -> dict[str, Any]:
        """Return the graph as JSON values without nulls; node by node, so that other threads can run in between."""
        nodes = {node_id: node.model_dump(mode="json", exclude_none=True) for node_id, node in self.nodes.items()}
        return {"id": self.id, "nodes": nodes, "edges": [edge.model_dump() for edge in self.edges]}

    def validate_self(self) -> None:
        """Raise one of the ValueErrors in `rules` for the first broken rule."""
        check(self.nodes, self.edges)

    def get_node(self, node_id: str) -> BaseInvocation:
        """Return a node by id. Raises NodeNotFoundError."""
        try:
            return self.nodes[node_id]
        except KeyError:
            message = f"Node {node_id} not found in graph"
            raise NodeNotFoundError(message) from None

    def has_node(self, node_id: str) -> bool:
        """Return whether the graph has a node with this id."""
        return node_id in self.nodes

    def add_node(self, node: BaseInvocation) -> None:
        """Add a node under its own id. Raises NodeAlreadyInGraphError."""
        if node.id in self.nodes:
            message = f"Node with id {node.id} already exists in graph"
            raise NodeAlreadyInGraphError(message)
        self.nodes[node.id] = node

    def delete_node(self, node_id: str) -> None:
        """Remove a node and its edges, if it exists."""
        if self.nodes.pop(node_id, None) is not None:
            self.edges = [e for e in self.edges if node_id not in (e.source.node_id, e.destination.node_id)]

    def add_edge(self, edge: Edge) -> None:
        """Add an edge. Raises InvalidEdgeError if it exists already or breaks a rule.

        Unlike `validate_self`, this rejects a second edge into an input (except a collector's).
        """
        check_new_edge(self.nodes, self.edges, edge)
        self.edges.append(edge)

    def delete_edge(self, edge: Edge) -> None:
        """Remove an edge, if it exists."""
        self.edges = [present for present in self.edges if present != edge]


class Layout:
    """Edges of a graph grouped by node, and its nodes in topological order. Made once per session."""

    def __init__(self, graph: Graph) -> None:
        self.inward: defaultdict[str, list[Edge]] = defaultdict(list)
        self.outward: defaultdict[str, list[Edge]] = defaultdict(list)
        for edge in graph.edges:
            self.inward[edge.destination.node_id].append(edge)
            self.outward[edge.source.node_id].append(edge)
        self._nodes: dict[str, Any] = graph.nodes

    @cached_property
    def order(self) -> list[str]:
        """Node ids in topological order, level by level."""
        waiting = {node_id: len(self.inward[node_id]) for node_id in self._nodes}
        order = [node_id for node_id, count in waiting.items() if count == 0]
        for node_id in order:
            for edge in self.outward[node_id]:
                waiting[edge.destination.node_id] -= 1
                if waiting[edge.destination.node_id] == 0:
                    order.append(edge.destination.node_id)
        return order

    def parents(self, node_id: str) -> list[str]:
        """Return the ids of the nodes with edges into this node, each once."""
        return list(dict.fromkeys(edge.source.node_id for edge in self.inward[node_id]))
