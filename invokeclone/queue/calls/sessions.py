"""What a graph runs when it calls a workflow: the workflow's own graph, once for each combination of its batches.

It knows neither the queue nor where dynamic prompts and boards are read: who calls brings both along (`Sources`).
"""

import itertools
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import JsonValue, ValidationError

from invokeclone.graph.session.graph import Graph
from invokeclone.graph.session.rules import DYNAMIC_INPUT
from invokeclone.workflows import compatibility, conversion, generators
from invokeclone.workflows.compatibility import ALONE, told
from invokeclone.workflows.conversion import Drawing, Place
from invokeclone.workflows.schemas import WorkflowWithoutID


class NotCallable(ValueError):
    """The workflow cannot be called so."""


class Sources(Protocol):
    """Where the values of generators come from that do not follow from what they say."""

    def prompts(self, generator: generators.DynamicPrompts) -> list[str]:
        """Return the prompts of a pattern."""
        ...

    def images(self, generator: generators.BoardImages) -> list[str]:
        """Return the names of the images on a board."""
        ...


def graphs(
    workflow: WorkflowWithoutID, inputs: Mapping[str, JsonValue], sources: Sources, capacity: int
) -> list[Graph]:
    """Return the graphs that a call runs, with `inputs` put in. Blocks. Raises NotCallable."""
    judgement = compatibility.judge(workflow, capacity)
    if not judgement.is_callable:
        raise NotCallable(f"The workflow {workflow.name!r} cannot be called: {judgement.message}")
    drawing = conversion.read(workflow.nodes, workflow.edges)
    given = _given(workflow, inputs)
    runs = _runs(drawing, given, sources, capacity)
    try:
        made = [Graph.model_validate(conversion.graph(drawing, batched, given)) for batched in runs]
        for graph in made:
            graph.validate_self()
    except ValidationError as error:
        raise NotCallable(f"The inputs of the workflow {workflow.name!r} are not valid: {told(error)}") from error
    except ValueError as error:
        raise NotCallable(f"The graph of the workflow {workflow.name!r} is not valid: {error}") from error
    return made


def _given(workflow: WorkflowWithoutID, inputs: Mapping[str, JsonValue]) -> dict[Place, JsonValue]:
    """Return the values that a caller sets, by node and input. Raises NotCallable for one that is not offered."""
    listed = [(field.nodeId, field.fieldName) for field in workflow.exposedFields]
    offered = set(conversion.exposed(workflow.form, listed))
    found: dict[Place, JsonValue] = {}
    for name, value in inputs.items():
        node_id, _, field = name.removeprefix(DYNAMIC_INPUT).rpartition("::")
        if not name.startswith(DYNAMIC_INPUT) or (node_id, field) not in offered:
            raise NotCallable(f"The workflow {workflow.name!r} offers no input {name!r}")
        found[node_id, field] = value
    return found


def _runs(
    drawing: Drawing, given: Mapping[Place, JsonValue], sources: Sources, capacity: int
) -> list[dict[str, JsonValue]]:
    """Return the values of the batch nodes for each run: groups go in step, all else is combined, the last one fastest."""
    groups: defaultdict[str, dict[str, list[Any]]] = defaultdict(dict)
    for node_id, node in drawing.nodes.items():
        if node.type in conversion.BATCHES and drawing.out_of(node_id):
            group = str(given.get((node_id, "batch_group_id"), node.values().get("batch_group_id", ALONE)))
            key = f"{ALONE} {node_id}" if group == ALONE else group
            groups[key][node_id] = _values(drawing, node_id, given, sources, capacity)
    together: list[list[dict[str, JsonValue]]] = []
    count = 1
    for key, lists in groups.items():
        lengths = {len(values) for values in lists.values()}
        if len(lengths) > 1:
            raise NotCallable(f"The batches of {key} differ in length")
        together.append([dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)])
        count *= lengths.pop()
    if count > capacity:
        raise NotCallable(f"{count} runs of the workflow do not fit into a queue of {capacity}")
    return [{name: value for part in parts for name, value in part.items()} for parts in itertools.product(*together)]


def _values(
    drawing: Drawing, node_id: str, given: Mapping[Place, JsonValue], sources: Sources, capacity: int
) -> list[Any]:
    """Return the values of a batch node; raises NotCallable when there are none."""
    place = node_id, conversion.BATCHES[drawing.nodes[node_id].type]
    generating = drawing.into(place)
    if generating:
        values = _generated(drawing, generating[-1][0], given, sources, capacity)
    else:
        held = given.get(place, drawing.nodes[node_id].values().get(place[1]))
        values = held if isinstance(held, list) else []
    if not values:
        raise NotCallable(f"The batch {node_id} has no values")
    return values


def _generated(
    drawing: Drawing, node_id: str, given: Mapping[Place, JsonValue], sources: Sources, capacity: int
) -> list[Any]:
    held = given.get((node_id, "generator"), drawing.nodes[node_id].values().get("generator"))
    try:
        generator = generators.read(held)
    except ValidationError as error:
        raise NotCallable(f"The generator {node_id} is not valid: {told(error)}") from error
    if not generator.type.startswith(drawing.nodes[node_id].type):
        raise NotCallable(f"The generator {node_id} makes something else")
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
            except generators.NotMade as error:
                raise NotCallable(f"The generator {node_id}: {error}") from error
