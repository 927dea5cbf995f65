"""From what the node editor draws to a graph that can run; it knows the editor's nodes and edges, and no database.

Connectors are bends in an edge; batch nodes and the generators that feed them are not part of the graph, but stand for the
values that one run of it is given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from invokeclone.graph.session.rules import CALL_SAVED_WORKFLOW, DYNAMIC_INPUT

RETURN = "workflow_return"
BATCHES = {"image_batch": "images", "string_batch": "strings", "integer_batch": "integers", "float_batch": "floats"}
"""Batch nodes by type, with the input that holds the values."""

BATCH_OUTPUT = {"image_batch": "image", "string_batch": "value", "integer_batch": "value", "float_batch": "value"}
GENERATORS = {
    "image_generator": "images",
    "string_generator": "strings",
    "integer_generator": "integers",
    "float_generator": "floats",
}
"""Generator nodes by type, with the output that holds the values."""

Place = tuple[str, str]
"""A node's id and the name of one of its fields."""


class Drawn(BaseModel):
    """What matters of a node on the editor's canvas."""

    model_config = ConfigDict(populate_by_name=True)

    type: str
    is_intermediate: bool = Field(default=False, alias="isIntermediate")
    use_cache: bool = Field(default=False, alias="useCache")
    inputs: dict[str, dict[str, JsonValue]] = {}

    def values(self) -> dict[str, JsonValue]:
        """Return the inputs that hold a value."""
        return {name: field["value"] for name, field in self.inputs.items() if "value" in field}


class _Node(BaseModel):
    id: str
    type: str
    data: dict[str, JsonValue] = {}


class _Line(BaseModel):
    type: str = "default"
    source: str
    target: str
    start: str | None = Field(default=None, alias="sourceHandle")
    end: str | None = Field(default=None, alias="targetHandle")


@dataclass(frozen=True)
class WorkflowEdge:
    """A value's way from an output to an input."""

    source: Place
    target: Place


@dataclass(frozen=True)
class Drawing:
    """A workflow's nodes by id, and its edges with connectors taken out."""

    nodes: dict[str, Drawn]
    edges: list[WorkflowEdge]

    def of_type(self, node_type: str) -> list[str]:
        """Return the ids of the nodes of a type."""
        return [node_id for node_id, node in self.nodes.items() if node.type == node_type]

    def into(self, target: Place) -> list[Place]:
        """Return where the edges into an input come from."""
        return [edge.source for edge in self.edges if edge.target == target]

    def out_of(self, node_id: str) -> list[WorkflowEdge]:
        """Return the edges out of a node."""
        return [edge for edge in self.edges if edge.source[0] == node_id]


def count_returns(nodes: list[dict[str, JsonValue]]) -> int:
    """Count the nodes that give values back to a calling graph, whatever else is wrong with the nodes."""
    data = [node.get("data") for node in nodes if node.get("type") == "invocation"]
    return sum(isinstance(one, dict) and one.get("type") == RETURN for one in data)


def read(nodes: list[dict[str, JsonValue]], edges: list[dict[str, JsonValue]]) -> Drawing:
    """Return the nodes that do something and the edges between them; ValidationError when they are malformed."""
    parsed = [_Node.model_validate(node) for node in nodes]
    lines = [line for line in (_Line.model_validate(edge) for edge in edges) if line.type == "default"]
    connectors = {node.id for node in parsed if node.type == "connector"}
    drawn = {node.id: Drawn.model_validate(node.data) for node in parsed if node.type == "invocation"}
    found = []
    for line in lines:
        source = None if line.target in connectors else _start(line, lines, connectors)
        if source is not None:
            found.append(WorkflowEdge(source, (line.target, line.end or "")))
    return Drawing(drawn, found)


def _start(line: _Line, lines: list[_Line], connectors: set[str]) -> Place | None:
    """Follow a line back through connectors to the output it starts from; None when it hangs loose or runs in a circle."""
    passed = set()
    while line.source in connectors:
        if line.source in passed:
            return None
        passed.add(line.source)
        before = [one for one in lines if one.target == line.source and one.end == "in"]
        if not before:
            return None
        line = before[0]
    return line.source, line.start or ""


def exposed(form: Mapping[str, JsonValue] | None, fields: list[Place]) -> list[Place]:
    """Return the inputs that a caller may set: those in the form, or the exposed `fields` when the form has none."""
    elements = (form or {}).get("elements")
    found = [_form_field(element) for element in elements.values()] if isinstance(elements, dict) else []
    return [place for place in found if place is not None] or fields


def _form_field(element: JsonValue) -> Place | None:
    match element:
        case {
            "type": "node-field",
            "data": {"fieldIdentifier": {"nodeId": str() as node_id, "fieldName": str() as name}},
        }:
            return node_id, name
        case _:
            return None


def graph(drawing: Drawing, batched: Mapping[str, JsonValue], given: Mapping[Place, JsonValue]) -> dict[str, Any]:
    """Return the graph as JSON: `batched` holds a value per batch node (None: not known yet), `given` what a caller sets.

    Where an edge arrives, no other value is written.
    """
    left_out = {*BATCHES, *GENERATORS}
    filled = {edge.target for edge in drawing.edges}
    sent = [edge for edge in drawing.edges if batched.get(edge.source[0]) is not None]
    set_later = {edge.target: batched[edge.source[0]] for edge in sent}
    nodes = {}
    for node_id, node in drawing.nodes.items():
        if node.type not in left_out:
            values = node.values() | _of(given, node_id)
            kept = {name: value for name, value in values.items() if (node_id, name) not in filled}
            nodes[node_id] = _node(node_id, node, kept | _of(set_later, node_id))
    edges = [
        {"source": _end(edge.source), "destination": _end(edge.target)}
        for edge in drawing.edges
        if edge.source[0] not in drawing.nodes or drawing.nodes[edge.source[0]].type not in left_out
    ]
    return {"nodes": nodes, "edges": edges}


def _of(values: Mapping[Place, JsonValue], node_id: str) -> dict[str, JsonValue]:
    """Return the values of one node by the names of its inputs."""
    return {name: value for (owner, name), value in values.items() if owner == node_id}


def _end(place: Place) -> dict[str, str]:
    return {"node_id": place[0], "field": place[1]}


def _node(node_id: str, node: Drawn, values: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return one node of the graph; the editor's words for "no board" and "the chosen one" mean nothing here."""
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
