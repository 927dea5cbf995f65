"""Graphs of a called workflow: one for each combination of the values of its batch nodes.

Does not depend on the database: the caller supplies dynamic prompts and images of boards through `Sources`.
"""

import itertools
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import JsonValue, ValidationError

from invokeclone.graph.session.graph import Graph
from invokeclone.graph.session.rules import DYNAMIC_INPUT
from invokeclone.workflows import compatibility, conversion, generators
from invokeclone.workflows.compatibility import UNGROUPED, describe_error
from invokeclone.workflows.conversion import EditorGraph, FieldRef
from invokeclone.workflows.schemas import WorkflowWithoutID


class NotCallable(ValueError):
    """The workflow cannot be called, or not with these inputs."""


class Sources(Protocol):
    """Data sources of generators that cannot compute their values on their own."""

    def prompts(self, generator: generators.DynamicPrompts) -> list[str]:
        """Return the expanded prompts of a dynamic prompt."""
        ...

    def images(self, generator: generators.BoardImages) -> list[str]:
        """Return the names of the images on a board."""
        ...


def graphs(
    workflow: WorkflowWithoutID, inputs: Mapping[str, JsonValue], sources: Sources, capacity: int
) -> list[Graph]:
    """Return the graphs of a call with `inputs` substituted. Blocking. Raises NotCallable."""
    compatibility_report = compatibility.judge(workflow, capacity)
    if not compatibility_report.is_callable:
        raise NotCallable(f"The workflow {workflow.name!r} cannot be called: {compatibility_report.message}")
    drawing = conversion.read(workflow.nodes, workflow.edges)
    input_values = _parse_inputs(workflow, inputs)
    runs = _runs(drawing, input_values, sources, capacity)
    try:
        result = [Graph.model_validate(conversion.graph(drawing, batched, input_values)) for batched in runs]
        for graph in result:
            graph.validate_self()
    except ValidationError as error:
        raise NotCallable(
            f"The inputs of the workflow {workflow.name!r} are not valid: {describe_error(error)}"
        ) from error
    except ValueError as error:
        raise NotCallable(f"The graph of the workflow {workflow.name!r} is not valid: {error}") from error
    return result


def _parse_inputs(workflow: WorkflowWithoutID, inputs: Mapping[str, JsonValue]) -> dict[FieldRef, JsonValue]:
    """Return the caller's values by node and input. Raises NotCallable for inputs that the workflow does not expose."""
    listed = [(field.nodeId, field.fieldName) for field in workflow.exposedFields]
    offered = set(conversion.find_exposed_inputs(workflow.form, listed))
    values: dict[FieldRef, JsonValue] = {}
    for name, value in inputs.items():
        node_id, _, field = name.removeprefix(DYNAMIC_INPUT).rpartition("::")
        if not name.startswith(DYNAMIC_INPUT) or (node_id, field) not in offered:
            raise NotCallable(f"The workflow {workflow.name!r} does not expose an input {name!r}")
        values[node_id, field] = value
    return values


def _runs(
    drawing: EditorGraph, input_values: Mapping[FieldRef, JsonValue], sources: Sources, capacity: int
) -> list[dict[str, JsonValue]]:
    """Return the values of the batch nodes per run: grouped batches are zipped, others combined, the last fastest."""
    groups: defaultdict[str, dict[str, list[Any]]] = defaultdict(dict)
    for node_id, node in drawing.nodes.items():
        if node.type in conversion.BATCHES and drawing.edges_from(node_id):
            group = str(input_values.get((node_id, "batch_group_id"), node.values().get("batch_group_id", UNGROUPED)))
            key = f"{UNGROUPED} {node_id}" if group == UNGROUPED else group
            groups[key][node_id] = _values(drawing, node_id, input_values, sources, capacity)
    combinations: list[list[dict[str, JsonValue]]] = []
    count = 1
    for key, lists in groups.items():
        lengths = {len(values) for values in lists.values()}
        if len(lengths) > 1:
            raise NotCallable(f"The batches of group {key} differ in length")
        combinations.append([dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)])
        count *= lengths.pop()
    if count > capacity:
        raise NotCallable(f"{count} runs of the workflow do not fit into a queue of {capacity}")
    return [
        {name: value for part in parts for name, value in part.items()} for parts in itertools.product(*combinations)
    ]


def _values(
    drawing: EditorGraph, node_id: str, input_values: Mapping[FieldRef, JsonValue], sources: Sources, capacity: int
) -> list[Any]:
    """Return the values of a batch node. Raises NotCallable if there are none."""
    location = node_id, conversion.BATCHES[drawing.nodes[node_id].type]
    generator_edges = drawing.sources_of(location)
    if generator_edges:
        values = _generate_values(drawing, generator_edges[-1][0], input_values, sources, capacity)
    else:
        value = input_values.get(location, drawing.nodes[node_id].values().get(location[1]))
        values = value if isinstance(value, list) else []
    if not values:
        raise NotCallable(f"The batch {node_id} has no values")
    return values


def _generate_values(
    drawing: EditorGraph, node_id: str, input_values: Mapping[FieldRef, JsonValue], sources: Sources, capacity: int
) -> list[Any]:
    value = input_values.get((node_id, "generator"), drawing.nodes[node_id].values().get("generator"))
    try:
        generator = generators.read(value)
    except ValidationError as error:
        raise NotCallable(f"The generator {node_id} is not valid: {describe_error(error)}") from error
    if not generator.type.startswith(drawing.nodes[node_id].type):
        raise NotCallable(f"The generator {node_id} does not match its node type")
    if not isinstance(generator, generators.BoardImages) and generator.size() > capacity:
        raise NotCallable(f"{generator.size()} values of the generator {node_id} do not fit into a queue of {capacity}")
    match generator:
        case generators.DynamicPrompts():
            return list(sources.prompts(generator))
        case generators.BoardImages():
            return [{"image_name": name} for name in sources.images(generator)]
        case _:
            try:
                return generators.make(generator)
            except generators.GeneratorError as error:
                raise NotCallable(f"The generator {node_id}: {error}") from error
