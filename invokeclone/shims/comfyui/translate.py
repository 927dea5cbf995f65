"""Translates a validated workflow to a graph: each node builds its part, sources first."""

from typing import Any

from pydantic import ValidationError

from invokeclone.graph.builder import GraphBuilder
from invokeclone.graph.recipes import CannotBuild
from invokeclone.kit.config.limits import DEFAULT_LIMITS, Limits
from invokeclone.queue.batches import Batch
from invokeclone.shims.comfyui import record
from invokeclone.shims.comfyui.catalog import Catalog
from invokeclone.shims.comfyui.node_types import PREFIX, BuildContext, NodeType
from invokeclone.shims.comfyui.nodes import TYPES
from invokeclone.shims.comfyui.record import PromptRecord
from invokeclone.shims.comfyui.workflow import (
    InvalidInputValue,
    NodeLink,
    ValidatedWorkflow,
    WorkflowRejected,
    convert_value,
    node_rejection,
)

NAME = "comfyui"
"""Origin and destination of the batches, and the name of the graphs."""
GROWTH = 4
"""Maximum number of graph nodes for each allowed node of a workflow."""


def batch_of(
    prompt_record: PromptRecord,
    checked: ValidatedWorkflow,
    catalog: Catalog,
    prompt_id: str,
    limits: Limits = DEFAULT_LIMITS,
) -> Batch:
    """Return the batch of a workflow: one item, whatever the number of images. Raises WorkflowRejected."""
    builder = build_graph(prompt_record.prompt, checked, catalog, limits)
    record.add_to_graph(builder, prompt_record)
    try:
        return Batch.model_validate(
            {"batch_id": prompt_id, "origin": NAME, "destination": NAME, "graph": builder.graph()}
        )
    except ValidationError as error:
        problems = "; ".join(str(problem["msg"]) for problem in error.errors()[:3])
        raise WorkflowRejected("invalid_prompt", "The prompt cannot be run", problems) from error


def build_graph(
    prompt: dict[str, Any], checked: ValidatedWorkflow, catalog: Catalog, limits: Limits = DEFAULT_LIMITS
) -> GraphBuilder:
    """Build the graph of a workflow, node by node; raises WorkflowRejected."""
    builder = GraphBuilder(NAME)
    positions = {node_id: position for position, node_id in enumerate(prompt)}
    outputs: dict[str, tuple[Any, ...]] = {}
    for node_id in checked.order:
        kind = TYPES[prompt[node_id]["class_type"]]
        context = BuildContext(builder.with_scope(f"{PREFIX}{positions[node_id]}_"), catalog, limits)
        try:
            inputs = {
                name: _value(name, value, kind, outputs, catalog) for name, value in checked.inputs[node_id].items()
            }
            outputs[node_id] = kind.build(context, **inputs)
        except (CannotBuild, InvalidInputValue) as error:
            raise node_rejection(node_id, kind.name, str(error), checked.outputs) from error
        if len(builder.nodes) > GROWTH * limits.comfyui_nodes:
            raise WorkflowRejected(
                "too_many_nodes",
                f"The prompt needs more than {GROWTH * limits.comfyui_nodes} graph nodes ({GROWTH} × setting limits.comfyui_nodes)",
            )
    return builder


def _value(name: str, value: Any, kind: NodeType, outputs: dict[str, tuple[Any, ...]], catalog: Catalog) -> Any:
    """Return the value of an input; a literal from a link is validated like one in the workflow."""
    if not isinstance(value, NodeLink):
        return value
    linked_value = outputs[value.source][value.slot]
    declared = kind.inputs[name]
    return linked_value if declared.is_link else convert_value(name, declared, linked_value, catalog)
