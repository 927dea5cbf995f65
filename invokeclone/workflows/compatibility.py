"""Static check whether a graph can call a workflow, from the workflow and the node vocabulary.

Does not read the database: the number of images on a board is unknown, so that such a batch counts as one value.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue, ValidationError

from invokeclone.graph.invocations import registry
from invokeclone.graph.session.graph import Graph
from invokeclone.graph.vocabulary.taxonomy import Classification
from invokeclone.workflows import conversion, generators
from invokeclone.workflows.conversion import EditorGraph, FieldRef
from invokeclone.workflows.schemas import WorkflowCallCompatibility, WorkflowWithoutID
from invokeclone.workflows.schemas import WorkflowCallCompatibilityReason as Reason

RULES = "1"
"""Version of the rules; increment it when the result for a workflow changes with the same vocabulary."""

UNGROUPED = "None"
"""Group id of batches that are not grouped."""

_fingerprints: dict[int, tuple[Mapping[str, Any], str]] = {}


class IncompatibleWorkflow(Exception):
    """The workflow cannot be called."""

    def __init__(self, reason: Reason, message: str) -> None:
        """Set the reason and the message."""
        super().__init__(message)
        self.reason = reason


def fingerprint(capacity: int) -> str:
    """Return a hash of the node types and versions and of the queue's capacity: the inputs beside the workflow."""
    nodes = registry.nodes_in_use()
    cached = _fingerprints.get(capacity)
    if cached is None or cached[0] is not nodes:
        versions = sorted(f"{name} {cls.ui_config.version} {cls.__module__}" for name, cls in nodes.items())
        text = "\n".join([RULES, str(capacity), *versions])
        cached = nodes, hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        _fingerprints[capacity] = cached
    return cached[1]


def judge(workflow: WorkflowWithoutID, capacity: int) -> WorkflowCallCompatibility:
    """Check whether graphs can call `workflow`, with at most `capacity` runs. Blocking."""
    try:
        _check(workflow, capacity)
    except IncompatibleWorkflow as error:
        return WorkflowCallCompatibility(is_callable=False, reason=error.reason, message=str(error))
    return WorkflowCallCompatibility(is_callable=True, reason=Reason.Ok)


def _check(workflow: WorkflowWithoutID, capacity: int) -> None:
    """Raise IncompatibleWorkflow for the first problem."""
    returns = conversion.count_returns(workflow.nodes)
    if returns == 0:
        raise IncompatibleWorkflow(Reason.MissingWorkflowReturn, "the workflow has no workflow_return node")
    if returns > 1:
        raise IncompatibleWorkflow(
            Reason.MultipleWorkflowReturn, f"the workflow has {returns} workflow_return nodes, not one"
        )
    try:
        editor_graph = conversion.read(workflow.nodes, workflow.edges)
    except ValidationError as error:
        raise IncompatibleWorkflow(
            Reason.InvalidGraph, f"a node or edge is malformed: {describe_error(error)}"
        ) from error
    _check_nodes(editor_graph)
    listed = [(field.nodeId, field.fieldName) for field in workflow.exposedFields]
    exposed_fields = set(conversion.find_exposed_inputs(workflow.form, listed))
    batch_values = _batches(editor_graph, exposed_fields, capacity)
    filled = {edge.target for node_id in batch_values for edge in editor_graph.edges_from(node_id)}
    _check_graph(conversion.graph(editor_graph, batch_values, {}), exposed_fields | filled)


def describe_error(error: ValidationError) -> str:
    """Return the first error as one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(step) for step in first['loc'])}: {first['msg']}"


def _check_nodes(editor_graph: EditorGraph) -> None:
    nodes = registry.nodes_in_use()
    for node_id, node in editor_graph.nodes.items():
        cls = nodes.get(node.type)
        if cls is None:
            raise IncompatibleWorkflow(Reason.UnsupportedNode, f"there is no node type {node.type!r}")
        is_batch_or_generator = node.type in conversion.BATCHES or node.type in conversion.GENERATORS
        if cls.ui_config.classification is Classification.Special and not is_batch_or_generator:
            raise IncompatibleWorkflow(Reason.UnsupportedNode, f"nodes of the type {node.type!r} cannot be run")
        if node.type in conversion.GENERATORS:
            _check_generator(editor_graph, node_id)


def _check_generator(editor_graph: EditorGraph, node_id: str) -> None:
    """Raise IncompatibleWorkflow unless a generator's values are only connected to batches."""
    for edge in editor_graph.edges_from(node_id):
        target = editor_graph.nodes.get(edge.target[0])
        if target is None or conversion.BATCHES.get(target.type) != edge.target[1]:
            raise IncompatibleWorkflow(
                Reason.UnsupportedNode, f"the generator {node_id} is connected to an input that is not a batch's"
            )


def _batches(editor_graph: EditorGraph, exposed_fields: set[FieldRef], capacity: int) -> dict[str, JsonValue]:
    """Return a value for each connected batch node. Raises IncompatibleWorkflow for no values or too many runs."""
    sizes: defaultdict[str, list[int]] = defaultdict(list)
    batch_values: dict[str, JsonValue] = {}
    for node_id, node in editor_graph.nodes.items():
        if node.type not in conversion.BATCHES or not editor_graph.edges_from(node_id):
            continue
        if any(edge.source[1] != conversion.BATCH_OUTPUT[node.type] for edge in editor_graph.edges_from(node_id)):
            raise IncompatibleWorkflow(
                Reason.UnsupportedBatchInput, f"only the value output of the batch {node_id} can be connected"
            )
        size, batch_values[node_id] = _batch(editor_graph, node_id, exposed_fields)
        sizes[str(node.values().get("batch_group_id", UNGROUPED))].append(size)
    runs = 1
    for group, group_sizes in sizes.items():
        if group != UNGROUPED and len(set(group_sizes)) > 1:
            raise IncompatibleWorkflow(Reason.UnsupportedBatchInput, f"the batches of group {group} differ in length")
        for size in group_sizes if group == UNGROUPED else group_sizes[:1]:
            runs *= size
    if runs > capacity:
        raise IncompatibleWorkflow(Reason.ExceedsCapacity, f"{runs} runs do not fit into a queue of {capacity}")
    return batch_values


def _batch(editor_graph: EditorGraph, node_id: str, exposed_fields: set[FieldRef]) -> tuple[int, JsonValue]:
    """Return the number of values of a batch node, and one of them."""
    node = editor_graph.nodes[node_id]
    target = node_id, conversion.BATCHES[node.type]
    sources = editor_graph.sources_of(target)
    if sources:
        return _generator_batch(editor_graph, sources[-1], target)
    values = node.values().get(target[1])
    if isinstance(values, list) and values:
        return len(values), values[0]
    if target in exposed_fields:
        return 1, None
    raise IncompatibleWorkflow(Reason.UnsupportedBatchInput, f"the batch {node_id} has no values")


def _generator_batch(editor_graph: EditorGraph, source: FieldRef, target: FieldRef) -> tuple[int, JsonValue]:
    node = editor_graph.nodes.get(source[0])
    if node is None or conversion.GENERATORS.get(node.type) != source[1] or source[1] != target[1]:
        raise IncompatibleWorkflow(
            Reason.UnsupportedBatchInput, f"the batch {target[0]} accepts values only from a matching generator"
        )
    try:
        generator = generators.read(node.values().get("generator"))
    except ValidationError as error:
        raise IncompatibleWorkflow(
            Reason.UnsupportedBatchInput, f"the generator {source[0]}: {describe_error(error)}"
        ) from error
    if not generator.type.startswith(node.type):
        raise IncompatibleWorkflow(
            Reason.UnsupportedBatchInput, f"the generator {source[0]} does not match its node type"
        )
    if isinstance(generator, generators.BoardImages):
        return 1, {"image_name": ""}
    size = generator.size()
    if isinstance(generator, generators.DynamicPrompts):
        return size, ""
    sample = generator.model_copy(update={"count": min(size, 2)}) if hasattr(generator, "count") else generator
    try:
        values = generators.make(sample)
    except generators.GeneratorError as error:
        raise IncompatibleWorkflow(Reason.UnsupportedBatchInput, f"the generator {source[0]}: {error}") from error
    if not values:
        raise IncompatibleWorkflow(Reason.UnsupportedBatchInput, f"the generator {source[0]} makes no values")
    return size, values[0]


def _check_graph(document: dict[str, Any], filled: set[FieldRef]) -> None:
    try:
        graph = Graph.model_validate(document)
    except ValidationError as error:
        raise IncompatibleWorkflow(Reason.InvalidInputs, describe_error(error)) from error
    try:
        graph.validate_self()
    except ValueError as error:
        raise IncompatibleWorkflow(Reason.InvalidGraph, str(error)) from error
    filled = {(edge.destination.node_id, edge.destination.field) for edge in graph.edges} | filled
    for node_id, node in graph.nodes.items():
        for name, _ in node.required_inputs:
            if (node_id, name) not in filled and getattr(node, name) is None:
                raise IncompatibleWorkflow(
                    Reason.InvalidInputs, f"{node.get_type()} {node_id} needs a value for {name}"
                )
