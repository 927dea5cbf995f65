"""What follows from a graph's form alone: whose index a copy of each node has, and which branch of an `if` it belongs to.

Made once per session; it knows no values and no copies.
"""

from collections import defaultdict
from typing import NamedTuple

from invokeclone.graph.control import COLLECT, IF, ITERATE
from invokeclone.graph.edges import Edge
from invokeclone.graph.graph import Graph, Layout

BRANCHES = {True: "true_input", False: "false_input"}
"""The input of an `if` that each condition chooses."""


class Gate(NamedTuple):
    """A node is only needed when the `if` chooses this branch."""

    if_id: str
    branch: bool


class Plan:
    """A source graph, seen as something to be copied and run."""

    def __init__(self, graph: Graph) -> None:
        self._nodes = graph.nodes
        self.layout = Layout(graph)
        self.order = self.layout.order
        self.types = {node_id: node.get_type() for node_id, node in graph.nodes.items()}
        self._place = {node_id: place for place, node_id in enumerate(self.order)}
        self.iterators: dict[str, tuple[str, ...]] = {}
        self.awaited: dict[str, tuple[str, ...]] = {}
        for node_id in self.order:
            self.iterators[node_id], self.awaited[node_id] = self._iterators_of(node_id)
        self.conditions: dict[str, Edge | None] = {}
        self.gates: defaultdict[str, list[Gate]] = defaultdict(list)
        for node_id in self.order:
            if self.types[node_id] == IF:
                self._add_gates(node_id)
        self.deciding = {edge.source.node_id for edge in self.conditions.values() if edge}
        """Nodes whose outputs are conditions."""

    def collection_edge(self, node_id: str) -> Edge | None:
        """Return the edge that brings an iterate node its collection."""
        edges = [edge for edge in self.layout.inward[node_id] if edge.destination.field == "collection"]
        return edges[-1] if edges else None

    def literal_condition(self, if_id: str) -> bool:
        """Return the condition of an `if` that no edge gives it."""
        return bool(getattr(self._nodes[if_id], "condition", False))

    def _iterators_of(self, node_id: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Iterate nodes whose index a copy of this node has, and those that must have run before it can be copied.

        A collector closes the innermost iteration of each of its sources; the outer ones go on through it.
        """
        above = [self.iterators[parent] for parent in self.layout.parents(node_id)]
        awaited = self._in_order(above)
        if self.types[node_id] == COLLECT:
            return self._in_order([iterators[:-1] for iterators in above]), awaited
        if self.types[node_id] == ITERATE:
            return (*awaited, node_id), awaited
        return awaited, awaited

    def _in_order(self, groups: list[tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(sorted({one for group in groups for one in group}, key=self._place.__getitem__))

    def _add_gates(self, if_id: str) -> None:
        conditions = [edge for edge in self.layout.inward[if_id] if edge.destination.field == "condition"]
        self.conditions[if_id] = conditions[-1] if conditions else None
        for branch, field in BRANCHES.items():
            for node_id in self._exclusive(if_id, field):
                self.gates[node_id].append(Gate(if_id, branch))

    def _exclusive(self, if_id: str, field: str) -> set[str]:
        """Nodes all of whose outputs end in one input of the `if`."""
        found: set[str] = set()
        for node_id in reversed(self.order[: self._place[if_id]]):
            edges = self.layout.outward[node_id]
            if edges and all(
                edge.destination.node_id in found
                or (edge.destination.node_id == if_id and edge.destination.field == field)
                for edge in edges
            ):
                found.add(node_id)
        return found
