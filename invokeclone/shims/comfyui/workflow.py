"""Validates a workflow as ComfyUI does, before anything is enqueued and with ComfyUI's error messages.

The result has what will run: the nodes that valid outputs need, sources first, with each input either a converted value
or a link.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from invokeclone.kit.config.limits import DEFAULT_LIMITS, Limits
from invokeclone.shims.comfyui.catalog import Catalog
from invokeclone.shims.comfyui.node_types import NodeInput, NodeType
from invokeclone.shims.comfyui.nodes import TYPES

IGNORED = frozenset({"Note", "MarkdownNote", "PrimitiveNode"})
"""Nodes of the editor that have no function."""
MAX_ECHO_LENGTH = 200
"""Characters of a rejected value that the error repeats."""
MAX_ECHO_CHOICES = 20
"""Choices that the error lists."""

Workflow = Mapping[str, Any]


class WorkflowRejected(Exception):
    """The workflow cannot run; `body` is ComfyUI's error response."""

    def __init__(
        self, kind: str, message: str, details: str = "", node_errors: Mapping[str, Any] | None = None, **extra: Any
    ) -> None:
        super().__init__(f"{message} {details}".strip())
        self.body = {
            "error": {"type": kind, "message": message, "details": details, "extra_info": extra},
            "node_errors": dict(node_errors or {}),
        }


@dataclass(frozen=True)
class NodeLink:
    """A link to another node's output."""

    source: str
    slot: int


@dataclass
class ValidatedWorkflow:
    """The part of a workflow that will run."""

    order: list[str]
    """Ids of the nodes, sources first."""
    outputs: list[str]
    """The output nodes among them."""
    inputs: dict[str, dict[str, Any]]
    """Inputs by node: values and NodeLinks."""
    errors: dict[str, Any] = field(default_factory=dict)
    """Errors of the other nodes, whose outputs are left out."""


class InvalidInputValue(Exception):
    """The value of an input is invalid; `extra` is for the error's `extra_info`."""

    def __init__(self, kind: str, message: str, details: str, **extra: Any) -> None:
        super().__init__(details)
        self.kind = kind
        self.message = message
        self.extra = extra


def check(
    prompt: Any, catalog: Catalog, limits: Limits = DEFAULT_LIMITS, targets: Collection[str] | None = None
) -> ValidatedWorkflow:
    """Return the part of a workflow that will run, of its output nodes only `targets` if given; raises WorkflowRejected."""
    types = _types(prompt, limits.comfyui_nodes)
    outputs = [node_id for node_id, kind in types.items() if kind.saves and (targets is None or node_id in targets)]
    if not outputs:
        raise WorkflowRejected("prompt_no_outputs", "Prompt has no outputs")
    inputs: dict[str, dict[str, Any]] = {}
    errors: dict[str, list[dict[str, Any]]] = {}
    order = _order(prompt, types, outputs)
    for node_id in order:
        inputs[node_id], errors[node_id] = _inputs(prompt, types, node_id, catalog)
    dependencies = {output: _dependencies(output, inputs) for output in outputs}
    valid_outputs = [output for output in outputs if not any(errors[node_id] for node_id in dependencies[output])]
    node_errors = {
        node_id: _node_error(
            problems, [output for output in outputs if node_id in dependencies[output]], types[node_id].name
        )
        for node_id, problems in errors.items()
        if problems
    }
    if not valid_outputs:
        raise _outputs_rejection([problem for problems in errors.values() for problem in problems], node_errors)
    needed_nodes = set().union(*(dependencies[output] for output in valid_outputs))
    return ValidatedWorkflow(
        [node_id for node_id in order if node_id in needed_nodes], valid_outputs, inputs, node_errors
    )


def node_rejection(node_id: str, kind: str, message: str, outputs: list[str]) -> WorkflowRejected:
    """Return the rejection of a workflow for the error of one node."""
    error = _error("custom_validation_failed", "Custom validation failed for node", message)
    return _outputs_rejection([error], {node_id: _node_error([error], outputs, kind)})


def _node_error(problems: list[dict[str, Any]], outputs: list[str], kind: str) -> dict[str, Any]:
    return {"errors": problems, "dependent_outputs": outputs, "class_type": kind}


def _outputs_rejection(problems: list[dict[str, Any]], node_errors: Mapping[str, Any]) -> WorkflowRejected:
    """Return the rejection of a workflow none of whose outputs can run."""
    details = "\n".join(f"{problem['message']}: {problem['details']}" for problem in problems)
    return WorkflowRejected(
        "prompt_outputs_failed_validation", "Prompt outputs failed validation", details, node_errors
    )


# Nodes and links


def _types(prompt: Any, limit: int) -> dict[str, NodeType]:
    if not isinstance(prompt, Mapping):
        raise WorkflowRejected("invalid_prompt", "The prompt must be an object of nodes by id")
    if len(prompt) > limit:
        raise WorkflowRejected(
            "too_many_nodes", f"The prompt has {len(prompt)} nodes, more than {limit} (setting limits.comfyui_nodes)"
        )
    node_types = {}
    for node_id, node in prompt.items():
        name = node.get("class_type") if isinstance(node, Mapping) else None
        if not isinstance(name, str):
            raise WorkflowRejected(
                "missing_node_type",
                f"Node '{node_id}' has no class_type.",
                f"Node ID '#{node_id}'",
                node_id=node_id,
                class_type=None,
                node_title=_title(node),
            )
        if name in IGNORED:
            continue
        if name not in TYPES:
            raise WorkflowRejected(
                "missing_node_type",
                f"Cannot execute because node {name} does not exist.",
                f"Node ID '#{node_id}': this server has the nodes that /object_info lists, replace it by one of these",
                node_id=node_id,
                class_type=name,
                node_title=_title(node),
            )
        node_types[node_id] = TYPES[name]
    return node_types


def _title(node: Any) -> str | None:
    """Return the title that the editor gave a node."""
    meta = node.get("_meta") if isinstance(node, Mapping) else None
    title = meta.get("title") if isinstance(meta, Mapping) else None
    return title[:MAX_ECHO_LENGTH] if isinstance(title, str) else None


def _links(prompt: Workflow, types: Mapping[str, NodeType], node_id: str) -> Iterator[str]:
    """Yield the ids of the existing nodes that a node's declared inputs are linked to."""
    inputs = _raw_inputs(prompt, node_id)
    for name in types[node_id].inputs:
        link = _link(inputs.get(name))
        if link and link.source in types:
            yield link.source


def _raw_inputs(prompt: Workflow, node_id: str) -> Mapping[str, Any]:
    inputs = prompt[node_id].get("inputs")
    return inputs if isinstance(inputs, Mapping) else {}


def _link(value: Any) -> NodeLink | None:
    """Return the link of a list of node id and slot; None for any other value."""
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004  (id and slot)
        return None
    source, slot = value
    if isinstance(source, bool) or not isinstance(source, str | int) or isinstance(slot, bool):
        return None
    return NodeLink(str(source), slot) if isinstance(slot, int) and slot >= 0 else None


def _order(prompt: Workflow, types: Mapping[str, NodeType], outputs: list[str]) -> list[str]:
    """Return the nodes that the outputs need, sources first; raises WorkflowRejected for a cycle."""
    ordered: dict[str, None] = {}
    path: dict[str, Iterator[str]] = {}
    for output in outputs:
        if output not in ordered:
            path[output] = _links(prompt, types, output)
        while path:
            node_id = next(reversed(path))
            source = next(path[node_id], None)
            if source is None:
                ordered[node_id] = None
                del path[node_id]
            elif source in path:
                raise _cycle_rejection(list(path)[list(path).index(source) :], types, output)
            elif source not in ordered:
                path[source] = _links(prompt, types, source)
    return list(ordered)


def _cycle_rejection(cycle: list[str], types: Mapping[str, NodeType], output: str) -> WorkflowRejected:
    """Return the rejection of a workflow with a cycle, whose nodes each depend on the next."""
    details = " <- ".join(f"{node_id} ({types[node_id].name})" for node_id in [*cycle, cycle[0]])
    errors = {
        node_id: _error(
            "dependency_cycle", "Dependency cycle detected", details, {"node_id": node_id, "cycle_nodes": cycle}
        )
        for node_id in cycle
    }
    node_errors = {node_id: _node_error([error], [output], types[node_id].name) for node_id, error in errors.items()}
    return _outputs_rejection([errors[cycle[0]]], node_errors)


def _dependencies(output: str, inputs: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the nodes that an output needs, including itself."""
    nodes: set[str] = set()
    pending = [output]
    while pending:
        node_id = pending.pop()
        if node_id not in nodes:
            nodes.add(node_id)
            pending += [value.source for value in inputs[node_id].values() if isinstance(value, NodeLink)]
    return nodes


# Inputs of a node


def _inputs(
    prompt: Workflow, types: Mapping[str, NodeType], node_id: str, catalog: Catalog
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the inputs of a node, and their errors."""
    raw = _raw_inputs(prompt, node_id)
    inputs: dict[str, Any] = {}
    errors = []
    for name, declared in types[node_id].inputs.items():
        try:
            inputs[name] = _input(name, declared, raw, types, catalog)
        except InvalidInputValue as bad:
            extra = {"input_name": name, "input_config": declared.describe(catalog), **bad.extra}
            if name in raw:
                extra["received_value"] = _shorten(raw[name])
            errors.append(_error(bad.kind, bad.message, str(bad), extra))
            link = _link(raw.get(name))
            if link and link.source in types:  # its source is validated all the same
                inputs[name] = link
    return inputs, errors


def _error(kind: str, message: str, details: str, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": dict(extra or {})}


def _shorten(value: Any) -> Any:
    text = str(value)
    return value if isinstance(value, int | float | bool) and len(text) <= MAX_ECHO_LENGTH else text[:MAX_ECHO_LENGTH]


def _input(
    name: str, declared: NodeInput, raw: Mapping[str, Any], types: Mapping[str, NodeType], catalog: Catalog
) -> Any:
    value = raw.get(name)
    if isinstance(value, Mapping) and "__value__" in value:  # how clients send a list that is not a link
        value = value["__value__"]
    elif isinstance(value, list):
        return _resolve_link(name, declared, value, types)
    if value is None:
        return _default_value(name, declared, catalog, is_null=name in raw)
    if declared.is_link:
        raise InvalidInputValue(
            "bad_linked_input",
            "Bad linked input, must be a length-2 list of [node_id, slot_index]",
            f"{name}, received_value({_shorten(value)})",
        )
    return convert_value(name, declared, value, catalog)


def _resolve_link(name: str, declared: NodeInput, value: list[Any], types: Mapping[str, NodeType]) -> NodeLink:
    link = _link(value)
    if link is None or link.source not in types or link.slot >= len(types[link.source].outputs):
        raise InvalidInputValue(
            "bad_linked_input",
            "Bad linked input, must be a length-2 list of [node_id, slot_index]",
            f"{name}, received_value({_shorten(value)})",
        )
    received = types[link.source].outputs[link.slot]
    if received != declared.type and (received, declared.type) != ("INT", "FLOAT"):
        raise InvalidInputValue(
            "return_type_mismatch",
            "Return type mismatch between linked nodes",
            f"{name}, received_type({received}) mismatch input_type({declared.type})",
            received_type=received,
            linked_node=[link.source, link.slot],
        )
    return link


def _default_value(name: str, declared: NodeInput, catalog: Catalog, *, is_null: bool) -> Any:
    """Return the value of a missing input; a null means the default, or None for the model's setting."""
    if declared.optional or (is_null and declared.from_model):
        return declared.default if declared.optional else None
    if is_null and not declared.is_link:
        names = declared.names(catalog) if declared.list_name and not declared.open_list else []
        default = names[0] if names else declared.default
        if default is not None:
            return default
    raise InvalidInputValue("required_input_missing", "Required input is missing", name)


def convert_value(name: str, declared: NodeInput, value: Any, catalog: Catalog) -> Any:
    """Return a value converted to the input's type; raises InvalidInputValue."""
    if declared.type == "COMBO":
        return _convert_choice(name, declared, value, catalog)
    try:
        result = _CONVERSIONS[declared.type](value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputValue(
            "invalid_input_type",
            f"Failed to convert an input value to a {declared.type} value",
            f"{name}, {_shorten(value)}, {_shorten(error)}",
            exception_message=_shorten(error),
        ) from error
    if declared.minimum is not None and result < declared.minimum:
        raise InvalidInputValue(
            "value_smaller_than_min", f"Value {_shorten(result)} smaller than min of {declared.minimum}", name
        )
    if declared.maximum is not None and result > declared.maximum:
        raise InvalidInputValue(
            "value_bigger_than_max", f"Value {_shorten(result)} bigger than max of {declared.maximum}", name
        )
    return result


def _convert_choice(name: str, declared: NodeInput, value: Any, catalog: Catalog) -> str:
    names = declared.names(catalog)
    is_known = isinstance(value, str) and (
        value in names
        or declared.open_list
        or (declared.list_name is not None and catalog.model(declared.list_name, value) is not None)
    )
    if not is_known:
        offered = str(names[:MAX_ECHO_CHOICES]) if len(names) <= MAX_ECHO_CHOICES else f"(list of length {len(names)})"
        raise InvalidInputValue(
            "value_not_in_list", "Value not in list", f"{name}: '{_shorten(value)}' not in {offered}"
        )
    return str(value)


def _integer(value: Any) -> int:
    if isinstance(value, str) and len(value) > MAX_ECHO_LENGTH:
        raise ValueError("too long for a number")
    return int(value)


def _float(value: Any) -> float:
    result = float(value)
    if not math.isfinite(result):
        raise ValueError("not a finite number")
    return result


def _string(value: Any) -> str:
    if isinstance(value, Mapping):
        raise TypeError("not a string")
    return str(value)


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {"INT": _integer, "FLOAT": _float, "STRING": _string, "BOOLEAN": bool}
