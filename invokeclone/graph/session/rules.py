"""Validation rules of graphs; each violation raises a subclass of ValueError.

Required inputs and values are checked when the graph runs, not here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from invokeclone.graph.invocations import types
from invokeclone.graph.session.control import COLLECT, ITERATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from invokeclone.graph.invocations.invocation import BaseInvocation
    from invokeclone.graph.session.edges import Edge

    Nodes = Mapping[str, BaseInvocation]

CALL_SAVED_WORKFLOW = "call_saved_workflow"
DYNAMIC_INPUT = "saved_workflow_input::"
"""Prefix of the names of a saved workflow's inputs on the node that calls it."""


class DuplicateNodeIdError(ValueError):
    """Two nodes have the same id."""


class NodeIdMismatchError(ValueError):
    """A node's key in the graph is not its id."""


class NodeNotFoundError(ValueError):
    """There is no node with this id."""


class NodeAlreadyInGraphError(ValueError):
    """The graph already has a node with this id."""


class NodeFieldNotFoundError(ValueError):
    """A node has no field of this name."""


class InvalidEdgeError(ValueError):
    """An edge breaks a rule."""


class CyclicalGraphError(ValueError):
    """The graph contains a cycle."""


def check(nodes: Nodes, edges: list[Edge]) -> None:
    """Raise the error of the first rule that a graph breaks."""
    _check_ids(nodes)
    for edge in edges:
        _check_ends(nodes, edge)
    order = _check_acyclic(nodes, edges)
    for edge in edges:
        _check_types(nodes, edge)
    _check_control(nodes, edges, order)


def check_new_edge(nodes: Nodes, edges: list[Edge], edge: Edge) -> None:
    """Raise the error of the first rule that adding an edge to a graph breaks."""
    _check_ends(nodes, edge)
    if edge in edges:
        message = f"Edge already exists: {edge}"
        raise InvalidEdgeError(message)
    destination = edge.destination
    many = nodes[destination.node_id].get_type() == COLLECT and destination.field in ("item", "collection")
    if not many and any(present.destination == destination for present in edges):
        message = f"Input {destination} has an edge already"
        raise InvalidEdgeError(message)
    with_edge = [*edges, edge]
    order = _check_acyclic(nodes, with_edge)
    _check_types(nodes, edge)
    edges_in, edges_out = _by_node(with_edge)
    collected = _collector_types(nodes, edges_in, order)
    for node_id in (edge.source.node_id, destination.node_id):
        if nodes[node_id].get_type() == ITERATE and edges_in[node_id]:
            _check_iterate(nodes, edges_in, edges_out, collected, node_id)
        if nodes[node_id].get_type() == COLLECT and edges_in[node_id]:
            _check_collect(nodes, edges_in, edges_out, collected, node_id)


def _check_ids(nodes: Nodes) -> None:
    duplicates = [node_id for node_id, count in Counter(node.id for node in nodes.values()).items() if count > 1]
    if duplicates:
        message = f"Node ids must be unique: {', '.join(duplicates)}"
        raise DuplicateNodeIdError(message)
    for key, node in nodes.items():
        if key != node.id:
            message = f"Node ids must match: got {key} as key and {node.id} as id"
            raise NodeIdMismatchError(message)


def _is_dynamic(node: BaseInvocation, field: str) -> bool:
    return field.startswith(DYNAMIC_INPUT) and node.get_type() == CALL_SAVED_WORKFLOW


def _check_ends(nodes: Nodes, edge: Edge) -> None:
    source, destination = nodes.get(edge.source.node_id), nodes.get(edge.destination.node_id)
    if source is None:
        message = f"Edge source node {edge.source.node_id} does not exist in the graph"
        raise NodeNotFoundError(message)
    if destination is None:
        message = f"Edge destination node {edge.destination.node_id} does not exist in the graph"
        raise NodeNotFoundError(message)
    if edge.source.field not in source.output_class.__pydantic_fields__:
        message = f"Edge source field {edge.source.field} does not exist in node {edge.source.node_id}"
        raise NodeFieldNotFoundError(message)
    name = edge.destination.field
    if name not in type(destination).__pydantic_fields__ and not _is_dynamic(destination, name):
        message = f"Edge destination field {name} does not exist in node {edge.destination.node_id}"
        raise NodeFieldNotFoundError(message)


def _check_acyclic(nodes: Nodes, edges: list[Edge]) -> list[str]:
    """Return the nodes in topological order. Raises CyclicalGraphError."""
    order = _sources_first(nodes, edges)
    if len(order) < len(nodes):
        message = "Graph contains cycles"
        raise CyclicalGraphError(message)
    return order


def _sources_first(nodes: Nodes, edges: list[Edge]) -> list[str]:
    """Return the nodes in topological order, without those in or behind cycles."""
    waiting = dict.fromkeys(nodes, 0)
    outward: defaultdict[str, list[str]] = defaultdict(list)
    for edge in edges:
        waiting[edge.destination.node_id] += 1
        outward[edge.source.node_id].append(edge.destination.node_id)
    free = [node_id for node_id, count in waiting.items() if count == 0]
    for node_id in free:
        for other in outward[node_id]:
            waiting[other] -= 1
            if waiting[other] == 0:
                free.append(other)
    return free


def source_type(nodes: Nodes, edge: Edge) -> Any:
    """Return the declared type of an edge's output."""
    return nodes[edge.source.node_id].output_class.__pydantic_fields__[edge.source.field].annotation


def destination_type(nodes: Nodes, edge: Edge) -> Any:
    """Return the declared type of an edge's input; Any for an input of a saved workflow."""
    field = type(nodes[edge.destination.node_id]).__pydantic_fields__.get(edge.destination.field)
    return field.annotation if field else Any


def _check_types(nodes: Nodes, edge: Edge) -> None:
    if not types.compatible(source_type(nodes, edge), destination_type(nodes, edge)):
        message = f"Edge source and target types do not match ({edge})"
        raise InvalidEdgeError(message)


def _by_node(edges: Iterable[Edge]) -> tuple[defaultdict[str, list[Edge]], defaultdict[str, list[Edge]]]:
    """Return the edges into and the edges out of each node."""
    edges_in: defaultdict[str, list[Edge]] = defaultdict(list)
    edges_out: defaultdict[str, list[Edge]] = defaultdict(list)
    for edge in edges:
        edges_in[edge.destination.node_id].append(edge)
        edges_out[edge.source.node_id].append(edge)
    return edges_in, edges_out


EdgesBy = defaultdict[str, "list[Edge]"]


def _check_control(nodes: Nodes, edges: list[Edge], order: list[str]) -> None:
    control = {node_id: kind for node_id, node in nodes.items() if (kind := node.get_type()) in (ITERATE, COLLECT)}
    if not control:
        return
    edges_in, edges_out = _by_node(edges)
    collected = _collector_types(nodes, edges_in, order)
    for node_id, kind in control.items():
        if kind == ITERATE:
            _check_iterate(nodes, edges_in, edges_out, collected, node_id)
        else:
            _check_collect(nodes, edges_in, edges_out, collected, node_id)


def _check_iterate(
    nodes: Nodes, edges_in: EdgesBy, edges_out: EdgesBy, collected: dict[str, set[Any]], node_id: str
) -> None:
    inputs = [edge for edge in edges_in[node_id] if edge.destination.field == "collection"]
    if len(inputs) != 1:
        message = f"Invalid iterate node ({node_id}): Iterator must have one collection input edge, not {len(inputs)}"
        raise InvalidEdgeError(message)
    collection = source_type(nodes, inputs[0])
    if not types.is_list(collection):
        message = f"Invalid iterate node ({node_id}): Iterator input must be a collection"
        raise InvalidEdgeError(message)
    item_types = types.elements(collection) or {Any}
    if nodes[inputs[0].source.node_id].get_type() == COLLECT:
        item_types = collected[inputs[0].source.node_id] or {Any}
    for edge in edges_out[node_id]:
        if edge.source.field != "item":
            continue
        input_type = destination_type(nodes, edge)
        if not all(types.compatible(element, input_type) for element in item_types):
            message = f"Invalid iterate node ({node_id}): Iterator output must connect to an input of the element type ({edge})"
            raise InvalidEdgeError(message)


def _collector_types(nodes: Nodes, edges_in: EdgesBy, order: list[str]) -> dict[str, set[Any]]:
    """Return the item types of each collector, without Any, including those of collectors that feed it.

    `order` lists the nodes in topological order.
    """
    types_by_collector: dict[str, set[Any]] = {}
    for node_id in order:
        if nodes[node_id].get_type() != COLLECT:
            continue
        item_types: set[Any] = set()
        for edge in edges_in[node_id]:
            if edge.destination.field == "item":
                item_types |= types.roots(source_type(nodes, edge))
            elif edge.destination.field == "collection":
                item_types |= types_by_collector.get(edge.source.node_id) or types.elements(source_type(nodes, edge))
        types_by_collector[node_id] = item_types - {Any}
    return types_by_collector


def _root(candidates: set[Any]) -> Any:
    """Return the type that all others are subclasses of, or None if there is none."""
    return next(
        (
            candidate
            for candidate in candidates
            if all(candidate == other or types.is_subclass(other, candidate) for other in candidates)
        ),
        None,
    )


def _accepts(input_type: Any, root: Any) -> bool:
    """Return whether an input of type `input_type` accepts a list of `root`."""
    if types.is_any(input_type):
        return True
    return any(
        element is Any or element == root or types.is_subclass(root, element) for element in types.elements(input_type)
    )


def _check_collect(
    nodes: Nodes, edges_in: EdgesBy, edges_out: EdgesBy, collected: dict[str, set[Any]], node_id: str
) -> None:
    inputs = [edge for edge in edges_in[node_id] if edge.destination.field in ("item", "collection")]
    if not inputs:
        message = f"Invalid collect node ({node_id}): Collector must have at least one item or collection input edge"
        raise InvalidEdgeError(message)
    for edge in inputs:
        output_type = source_type(nodes, edge)
        if edge.destination.field == "collection" and not (types.holds_list(output_type) or types.is_any(output_type)):
            message = f"Invalid collect node ({node_id}): Collector collection input must be a collection ({edge})"
            raise InvalidEdgeError(message)
    item_types = collected[node_id]
    root = _root(item_types) if item_types else Any
    if root is None:
        message = f"Invalid collect node ({node_id}): Collector inputs must be of a single type"
        raise InvalidEdgeError(message)
    for edge in edges_out[node_id]:
        if edge.source.field != "collection":
            continue
        input_type = destination_type(nodes, edge)
        if not (types.holds_list(input_type) or types.is_any(input_type)):
            message = f"Invalid collect node ({node_id}): Collector output must connect to a collection input ({edge})"
            raise InvalidEdgeError(message)
        if not _accepts(input_type, root):
            message = f"Invalid collect node ({node_id}): Collector output must connect to a collection of the same type ({edge})"
            raise InvalidEdgeError(message)
