"""Static analysis of a graph: the iterate nodes that index each node's copies, and the `if` branches that gate it."""

from collections.abc import Iterator
from typing import NamedTuple

from invokeclone.graph.session.control import COLLECT, IF, ITERATE
from invokeclone.graph.session.edges import Edge
from invokeclone.graph.session.graph import Graph, Layout

BRANCHES = {True: "true_input", False: "false_input"}
"""The input of an `if` that each condition selects."""
FIELDS = {field: branch for branch, field in BRANCHES.items()}


class Gate(NamedTuple):
    """A branch of an `if`: a node behind it is needed only if the `if` selects the branch and is needed itself."""

    if_id: str
    branch: bool
    depth: int
    """Number of gates that the `if` itself is behind."""


class GraphPlan:
    """Iterations and gates of a source graph. Made once per session."""

    def __init__(self, graph: Graph) -> None:
        self._nodes = graph.nodes
        self.layout = Layout(graph)
        self.order = self.layout.order
        self.types = {node_id: node.get_type() for node_id, node in graph.nodes.items()}
        self._positions = {node_id: position for position, node_id in enumerate(self.order)}
        self.iterators: dict[str, tuple[str, ...]] = {}
        self.awaited: dict[str, tuple[str, ...]] = {}
        """Iterate nodes that must have been executed before a node can be copied, innermost first: it runs last."""
        for node_id in self.order:
            self.iterators[node_id], awaited = self._iterators_of(node_id)
            self.awaited[node_id] = awaited[::-1]
        self.conditions: dict[str, Edge | None] = {}
        for node_id in self.order:
            if self.types[node_id] == IF:
                edges = [edge for edge in self.layout.inward[node_id] if edge.destination.field == "condition"]
                self.conditions[node_id] = edges[-1] if edges else None
        self.gates: dict[str, Gate] = {}
        """The innermost gate of each gated node: everything that the node's outputs lead to is behind it."""
        for node_id in reversed(self.order):
            if gate := self._gate_of(node_id):
                self.gates[node_id] = gate
        self.condition_sources = {edge.source.node_id for edge in self.conditions.values() if edge}
        """Nodes whose outputs are conditions."""

    def collection_edge(self, node_id: str) -> Edge | None:
        """Return the edge into the collection of an iterate node."""
        edges = [edge for edge in self.layout.inward[node_id] if edge.destination.field == "collection"]
        return edges[-1] if edges else None

    def literal_condition(self, if_id: str) -> bool:
        """Return the condition of an `if` without an edge into its condition."""
        return bool(getattr(self._nodes[if_id], "condition", False))

    def _iterators_of(self, node_id: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the iterate nodes that index a node's copies, and those that must be executed before it is copied.

        A collector ends the innermost iteration of each of its sources; outer iterations continue through it.
        """
        above = [self.iterators[parent] for parent in self.layout.parents(node_id)]
        awaited = self._in_order(above)
        if self.types[node_id] == COLLECT:
            return self._in_order([iterators[:-1] for iterators in above]), awaited
        if self.types[node_id] == ITERATE:
            return (*awaited, node_id), awaited
        return awaited, awaited

    def _in_order(self, groups: list[tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(sorted({node_id for group in groups for node_id in group}, key=self._positions.__getitem__))

    def gates_of(self, node_id: str) -> Iterator[Gate]:
        """Yield the gates that a node is behind, the innermost first."""
        gate = self.gates.get(node_id)
        while gate is not None:
            yield gate
            gate = self.gates.get(gate.if_id)

    def _gate_of(self, node_id: str) -> Gate | None:
        """Return the innermost gate that all of a node's outputs lead to; requires the gates of following nodes."""
        edges = self.layout.outward[node_id]
        gates = [self._gate_behind(edge) for edge in edges]
        common = gates[0] if gates else None
        for gate in gates[1:]:
            common = self._innermost_common(common, gate)
        return common

    def _gate_behind(self, edge: Edge) -> Gate | None:
        if_id = edge.destination.node_id
        outer = self.gates.get(if_id)
        if self.types[if_id] != IF or edge.destination.field not in FIELDS:
            return outer
        return Gate(if_id, FIELDS[edge.destination.field], outer.depth + 1 if outer else 0)

    def _innermost_common(self, gate: Gate | None, other: Gate | None) -> Gate | None:
        while gate is not None and other is not None and gate != other:
            if gate.depth >= other.depth:
                gate = self.gates.get(gate.if_id)
            else:
                other = self.gates.get(other.if_id)
        return gate if gate == other else None
