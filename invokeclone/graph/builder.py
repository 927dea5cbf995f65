"""Builder for graphs: nodes, and the edges implied by inputs that are outputs of other nodes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class NodeOutput:
    """An output of a node in a graph."""

    node_id: str
    field: str


@dataclass
class GraphBuilder:
    """Collects nodes and edges; `scope` is the prefix of the ids of added nodes."""

    graph_id: str
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    edges: list[dict[str, dict[str, str]]] = field(default_factory=list)
    scope: str = ""

    def with_scope(self, scope: str) -> "GraphBuilder":
        """Return a builder of the same graph that prefixes node ids with `scope`."""
        return GraphBuilder(self.graph_id, self.nodes, self.edges, scope)

    def node(self, node_id: str, node_type: str, **inputs: Any) -> str:
        """Add a node with intermediate results and return its id. A NodeOutput becomes an edge; None is omitted."""
        node_id = self.scope + node_id
        node: dict[str, Any] = {"id": node_id, "type": node_type, "is_intermediate": True, "use_cache": True}
        self.nodes[node_id] = node
        for name, value in inputs.items():
            if isinstance(value, NodeOutput):
                self.connect(value, node_id, name)
            elif value is not None:
                node[name] = value
        return node_id

    def connect(self, source: NodeOutput, node_id: str, name: str) -> None:
        """Add an edge from an output to the input `name` of a node."""
        self.edges.append(
            {
                "source": {"node_id": source.node_id, "field": source.field},
                "destination": {"node_id": node_id, "field": name},
            }
        )

    def remove_unused(self, output: NodeOutput) -> None:
        """Remove the node of an output unless others use it, and the nodes that only it uses."""
        node_id = output.node_id
        if any(edge["source"]["node_id"] == node_id for edge in self.edges) or self.nodes.pop(node_id, None) is None:
            return
        sources = [edge["source"] for edge in self.edges if edge["destination"]["node_id"] == node_id]
        self.edges[:] = [edge for edge in self.edges if edge["destination"]["node_id"] != node_id]
        for source in sources:
            self.remove_unused(NodeOutput(source["node_id"], source["field"]))

    def output(self, node_id: str, node_type: str, output: str, **inputs: Any) -> NodeOutput:
        """Add a node as `node` does and return one of its outputs."""
        return NodeOutput(self.node(node_id, node_type, **inputs), output)

    def collect(self, node_id: str, outputs: Sequence[NodeOutput]) -> NodeOutput:
        """Add a node that returns the outputs as a list."""
        node_id = self.node(node_id, "collect")
        for output in outputs:
            self.connect(output, node_id, "item")
        return NodeOutput(node_id, "collection")

    def result(self, node_id: str, board_id: str | None) -> None:
        """Make a node's image the result: saved to the gallery and never taken from the invocation cache."""
        self.nodes[node_id] |= {"is_intermediate": False, "use_cache": False}
        if board_id:
            self.nodes[node_id]["board"] = {"board_id": board_id}

    def graph(self) -> dict[str, Any]:
        """Return the graph as a dict of `id`, `nodes` and `edges`."""
        return {"id": self.graph_id, "nodes": self.nodes, "edges": self.edges}
