"""Translates a validated workflow to a graph: each node builds its part, sources first."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from invokeclone.graph.builder import GraphBuilder, NodeOutput
from invokeclone.graph.recipes import CannotBuild
from invokeclone.kit.config.limits import DEFAULT_LIMITS, Limits
from invokeclone.queue.batches import Batch
from invokeclone.shims.comfyui import record
from invokeclone.shims.comfyui.catalog import Catalog
from invokeclone.shims.comfyui.main_models import main_model_of, separate_models_of
from invokeclone.shims.comfyui.node_types import PREFIX, BuildContext, NodeType
from invokeclone.shims.comfyui.nodes import TYPES
from invokeclone.shims.comfyui.record import PromptRecord
from invokeclone.shims.comfyui.workflow import (
    InvalidInputValue,
    NodeLink,
    ValidatedWorkflow,
    WorkflowRejected,
    check,
    convert_value,
    node_rejection,
)

NAME = "comfyui"
"""Origin and destination of the batches, and the name of the graphs."""
MAX_PROBLEMS = 3
"""Problems of a graph that the error lists."""
GROWTH = 4
"""Maximum number of graph nodes for each allowed node of a workflow."""


@dataclass(frozen=True)
class Translation:
    """A workflow and the batch that runs it."""

    prompt_record: PromptRecord
    batch: Batch
    """One item, whatever the number of images."""
    node_errors: dict[str, Any]
    """Errors of the nodes that do not run."""
    warnings: list[str]
    """What the workflow asks for and the batch leaves out."""


def translate(
    prompt_record: PromptRecord,
    catalog: Catalog,
    prompt_id: str,
    limits: Limits = DEFAULT_LIMITS,
    targets: Collection[str] | None = None,
) -> Translation:
    """Validate a workflow and return its batch; of its output nodes only `targets` run. Raises WorkflowRejected."""
    checked = check(prompt_record.prompt, catalog, limits, targets)
    prompt_record = replace(prompt_record, outputs=checked.outputs)
    warnings: list[str] = []
    builder = build_graph(prompt_record.prompt, checked, catalog, limits, warnings)
    record.add_to_graph(builder, prompt_record)
    try:
        batch = Batch.model_validate(
            {"batch_id": prompt_id, "origin": NAME, "destination": NAME, "graph": builder.graph()}
        )
    except ValidationError as error:
        raise _graph_rejection(error, prompt_record) from error
    return Translation(prompt_record, batch, checked.errors, warnings)


def _graph_rejection(error: ValidationError, prompt_record: PromptRecord) -> WorkflowRejected:
    """Return the rejection of a workflow whose graph is invalid: of the node that an error is in, if it is in one."""
    problems = error.errors(include_url=False)[:MAX_PROBLEMS]
    text = "; ".join(str(problem["msg"]).removeprefix("Value error, ") for problem in problems)
    parts = [str(part) for problem in problems for part in problem["loc"]]
    node_id = next(filter(None, (record.comfy_id(prompt_record.ids, part) for part in parts)), None)
    if node_id is not None:
        return node_rejection(node_id, prompt_record.class_of(node_id), text, prompt_record.outputs)
    return WorkflowRejected("invalid_prompt", "The prompt cannot be run", text)


def build_graph(
    prompt: dict[str, Any],
    checked: ValidatedWorkflow,
    catalog: Catalog,
    limits: Limits = DEFAULT_LIMITS,
    warnings: list[str] | None = None,
) -> GraphBuilder:
    """Build the graph of a workflow, node by node; adds to `warnings`. Raises WorkflowRejected."""
    builder = GraphBuilder(NAME)
    positions = {node_id: position for position, node_id in enumerate(prompt)}
    outputs: dict[str, tuple[Any, ...]] = {}
    warnings = [] if warnings is None else warnings
    unused: list[NodeOutput] = []
    separate_models = separate_models_of(checked, prompt)
    for node_id in checked.order:
        kind = TYPES[prompt[node_id]["class_type"]]
        scoped = builder.with_scope(f"{PREFIX}{positions[node_id]}_")
        main_model = main_model_of(node_id, kind, checked, prompt)
        context = BuildContext(scoped, catalog, limits, warnings, main_model, separate_models, unused)
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
    for output in unused:
        builder.remove_unused(output)
    return builder


def _value(name: str, value: Any, kind: NodeType, outputs: dict[str, tuple[Any, ...]], catalog: Catalog) -> Any:
    """Return the value of an input; a literal from a link is validated like one in the workflow."""
    if not isinstance(value, NodeLink):
        return value
    linked_value = outputs[value.source][value.slot]
    declared = kind.inputs[name]
    return linked_value if declared.is_link else convert_value(name, declared, linked_value, catalog)
