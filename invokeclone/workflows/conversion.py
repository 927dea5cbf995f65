"""Conversion of the node editor's nodes and edges to a graph.

Connector nodes are resolved to direct edges. Batch nodes and their generators are not part of the graph: their values
are substituted for each run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from invokeclone.graph.session.rules import CALL_SAVED_WORKFLOW, DYNAMIC_INPUT

RETURN = "workflow_return"
BATCHES = {"image_batch": "images", "string_batch": "strings", "integer_batch": "integers", "float_batch": "floats"}
"""Input that holds the values, by type of batch node."""

BATCH_OUTPUT = {"image_batch": "image", "string_batch": "value", "integer_batch": "value", "float_batch": "value"}
GENERATORS = {
    "image_generator": "images",
    "string_generator": "strings",
    "integer_generator": "integers",
    "float_generator": "floats",
}
"""Output that holds the values, by type of generator node."""

FieldRef = tuple[str, str]
"""A node's id and the name of one of its fields."""


class InvocationNode(BaseModel):
    """The used fields of an invocation node in the editor."""

    model_config = ConfigDict(populate_by_name=True)

    type: str
    is_intermediate: bool = Field(default=False, alias="isIntermediate")
    use_cache: bool = Field(default=False, alias="useCache")
    inputs: dict[str, dict[str, JsonValue]] = {}

    def values(self) -> dict[str, JsonValue]:
        """Return the values of the inputs that have one."""
        return {name: field["value"] for name, field in self.inputs.items() if "value" in field}


class _EditorNode(BaseModel):
    id: str
    type: str
    data: dict[str, JsonValue] = {}


class _EditorEdge(BaseModel):
    type: str = "default"
    source: str
    target: str
    start: str | None = Field(default=None, alias="sourceHandle")
    end: str | None = Field(default=None, alias="targetHandle")


@dataclass(frozen=True)
class WorkflowEdge:
    """A connection from an output to an input."""

    source: FieldRef
    target: FieldRef


@dataclass(frozen=True)
class EditorGraph:
    """A workflow's invocation nodes by id, and its edges without connectors."""

    nodes: dict[str, InvocationNode]
    edges: list[WorkflowEdge]

    def of_type(self, node_type: str) -> list[str]:
        """Return the ids of the nodes of a type."""
        return [node_id for node_id, node in self.nodes.items() if node.type == node_type]

    def sources_of(self, target: FieldRef) -> list[FieldRef]:
        """Return the outputs connected to an input."""
        return [edge.source for edge in self.edges if edge.target == target]

    def edges_from(self, node_id: str) -> list[WorkflowEdge]:
        """Return the edges out of a node."""
        return [edge for edge in self.edges if edge.source[0] == node_id]


def count_returns(nodes: list[dict[str, JsonValue]]) -> int:
    """Count the workflow_return nodes; nodes may be malformed."""
    data = [node.get("data") for node in nodes if node.get("type") == "invocation"]
    return sum(isinstance(node_data, dict) and node_data.get("type") == RETURN for node_data in data)


def read(nodes: list[dict[str, JsonValue]], edges: list[dict[str, JsonValue]]) -> EditorGraph:
    """Return the invocation nodes and their edges. Raises ValidationError if they are malformed."""
    parsed = [_EditorNode.model_validate(node) for node in nodes]
    editor_edges = [
        editor_edge
        for editor_edge in (_EditorEdge.model_validate(edge) for edge in edges)
        if editor_edge.type == "default"
    ]
    connectors = {node.id for node in parsed if node.type == "connector"}
    invocation_nodes = {
        node.id: InvocationNode.model_validate(node.data) for node in parsed if node.type == "invocation"
    }
    workflow_edges = []
    for editor_edge in editor_edges:
        source = None if editor_edge.target in connectors else _trace_source(editor_edge, editor_edges, connectors)
        if source is not None:
            workflow_edges.append(WorkflowEdge(source, (editor_edge.target, editor_edge.end or "")))
    return EditorGraph(invocation_nodes, workflow_edges)


def _trace_source(edge: _EditorEdge, edges: list[_EditorEdge], connectors: set[str]) -> FieldRef | None:
    """Follow an edge back through connectors to its output; None if it is not connected or forms a cycle."""
    passed = set()
    while edge.source in connectors:
        if edge.source in passed:
            return None
        passed.add(edge.source)
        before = [candidate for candidate in edges if candidate.target == edge.source and candidate.end == "in"]
        if not before:
            return None
        edge = before[0]
    return edge.source, edge.start or ""


def find_exposed_inputs(form: Mapping[str, JsonValue] | None, fields: list[FieldRef]) -> list[FieldRef]:
    """Return the inputs that a caller may set: those in the form, or `fields` if the form has none."""
    elements = (form or {}).get("elements")
    form_fields = [_form_field(element) for element in elements.values()] if isinstance(elements, dict) else []
    return [field for field in form_fields if field is not None] or fields


def _form_field(element: JsonValue) -> FieldRef | None:
    match element:
        case {
            "type": "node-field",
            "data": {"fieldIdentifier": {"nodeId": str() as node_id, "fieldName": str() as name}},
        }:
            return node_id, name
        case _:
            return None


def graph(
    editor_graph: EditorGraph, batch_values: Mapping[str, JsonValue], caller_values: Mapping[FieldRef, JsonValue]
) -> dict[str, Any]:
    """Return the graph as JSON values.

    `batch_values` has a value per batch node (None: not known yet), `caller_values` the inputs set by the caller.
    Connected inputs get no other value.
    """
    left_out = {*BATCHES, *GENERATORS}
    filled = {edge.target for edge in editor_graph.edges}
    batch_edges = [edge for edge in editor_graph.edges if batch_values.get(edge.source[0]) is not None]
    batch_inputs = {edge.target: batch_values[edge.source[0]] for edge in batch_edges}
    nodes = {}
    for node_id, node in editor_graph.nodes.items():
        if node.type not in left_out:
            values = node.values() | _of(caller_values, node_id)
            literal_values = {name: value for name, value in values.items() if (node_id, name) not in filled}
            nodes[node_id] = _node(node_id, node, literal_values | _of(batch_inputs, node_id))
    edges = [
        {"source": _end(edge.source), "destination": _end(edge.target)}
        for edge in editor_graph.edges
        if edge.source[0] not in editor_graph.nodes or editor_graph.nodes[edge.source[0]].type not in left_out
    ]
    return {"nodes": nodes, "edges": edges}


def _of(values: Mapping[FieldRef, JsonValue], node_id: str) -> dict[str, JsonValue]:
    """Return the values of one node by the names of its inputs."""
    return {name: value for (owner, name), value in values.items() if owner == node_id}


def _end(reference: FieldRef) -> dict[str, str]:
    return {"node_id": reference[0], "field": reference[1]}


def _node(node_id: str, node: InvocationNode, values: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return one node of the graph, without the editor's board values `none` and `auto` (the selected board)."""
    if values.get("board") in ("auto", "none"):
        del values["board"]
    if node.type == CALL_SAVED_WORKFLOW:
        passed_on = {name: value for name, value in values.items() if name.startswith(DYNAMIC_INPUT)}
        inputs = values.get("workflow_inputs")
        values = {name: value for name, value in values.items() if name not in passed_on}
        values["workflow_inputs"] = {**(inputs if isinstance(inputs, dict) else {}), **passed_on}
    facts: dict[str, JsonValue] = {
        "id": node_id,
        "type": node.type,
        "is_intermediate": node.is_intermediate,
        "use_cache": node.use_cache,
    }
    return {**values, **facts}
