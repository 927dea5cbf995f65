"""Checks a workflow as ComfyUI does before anything is enqueued, and refuses in its words.

What comes out is what will run: the nodes that good outputs need, sources first, with each input either a value of the right
type or a link.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from invokeclone.kit.config.limits import DEFAULT_LIMITS, Limits
from invokeclone.shims.comfyui.catalog import Catalog
from invokeclone.shims.comfyui.nodes import TYPES
from invokeclone.shims.comfyui.vocabulary import NodeInput, NodeType

IGNORED = frozenset({"Note", "MarkdownNote", "PrimitiveNode"})
"""Nodes of the editor that do nothing."""
LONGEST = 200
"""Signs of a refused value that are repeated in the answer."""
SHOWN = 20
"""Choices that are repeated in the answer."""

Workflow = Mapping[str, Any]


class WorkflowRefused(Exception):
    """The workflow cannot run; holds ComfyUI's answer."""

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
    """An input that is another node's output."""

    source: str
    slot: int


@dataclass
class Checked:
    """What will run."""

    order: list[str]
    """Ids of the nodes, sources first."""
    outputs: list[str]
    """The output nodes among them."""
    given: dict[str, dict[str, Any]]
    """Inputs by node: values and Links."""
    errors: dict[str, Any] = field(default_factory=dict)
    """What is wrong with other nodes, whose outputs are left out."""


class BadValue(Exception):
    """A value is not what an input takes."""

    def __init__(self, kind: str, message: str, details: str) -> None:
        super().__init__(details)
        self.kind = kind
        self.message = message


def check(prompt: Any, catalog: Catalog, limits: Limits = DEFAULT_LIMITS) -> Checked:
    """Return what of a workflow will run; raises WorkflowRefused."""
    types = _types(prompt, limits.comfyui_nodes)
    outputs = [node_id for node_id, kind in types.items() if kind.saves]
    if not outputs:
        raise WorkflowRefused("prompt_no_outputs", "Prompt has no outputs")
    given: dict[str, dict[str, Any]] = {}
    errors: dict[str, list[dict[str, Any]]] = {}
    order = _order(prompt, types, outputs)
    for node_id in order:
        given[node_id], errors[node_id] = _inputs(prompt, types, node_id, catalog)
    needs = {output: _needs(output, given) for output in outputs}
    good = [output for output in outputs if not any(errors[node_id] for node_id in needs[output])]
    node_errors = {
        node_id: {
            "errors": found,
            "dependent_outputs": [output for output in outputs if node_id in needs[output]],
            "class_type": types[node_id].name,
        }
        for node_id, found in errors.items()
        if found
    }
    if not good:
        told = [f"{one['message']}: {one['details']}" for found in errors.values() for one in found]
        raise WorkflowRefused(
            "prompt_outputs_failed_validation", "Prompt outputs failed validation", "\n".join(told), node_errors
        )
    wanted = set().union(*(needs[output] for output in good))
    return Checked([node_id for node_id in order if node_id in wanted], good, given, node_errors)


def refused_node(node_id: str, kind: str, message: str, outputs: list[str]) -> WorkflowRefused:
    """Return the refusal of a whole workflow for what one node cannot do."""
    error = _error("custom_validation_failed", "Custom validation failed for node", message)
    node_errors = {node_id: {"errors": [error], "dependent_outputs": outputs, "class_type": kind}}
    details = f"{error['message']}: {message}"
    return WorkflowRefused("prompt_outputs_failed_validation", "Prompt outputs failed validation", details, node_errors)


# The whole


def _types(prompt: Any, most: int) -> dict[str, NodeType]:
    if not isinstance(prompt, Mapping):
        raise WorkflowRefused("invalid_prompt", "The prompt must be an object of nodes by their ids")
    if len(prompt) > most:
        raise WorkflowRefused(
            "too_many_nodes", f"The prompt has {len(prompt)} nodes, more than {most} (setting limits.comfyui_nodes)"
        )
    found = {}
    for node_id, given in prompt.items():
        name = given.get("class_type") if isinstance(given, Mapping) else None
        if not isinstance(name, str):
            raise WorkflowRefused("missing_node_type", f"Node '{node_id}' has no class_type.", f"Node ID '#{node_id}'")
        if name in IGNORED:
            continue
        if name not in TYPES:
            raise WorkflowRefused(
                "missing_node_type",
                f"Cannot execute because node {name} does not exist.",
                f"Node ID '#{node_id}'",
                node_id=node_id,
                class_type=name,
            )
        found[node_id] = TYPES[name]
    return found


def _links(prompt: Workflow, types: Mapping[str, NodeType], node_id: str) -> Iterator[str]:
    """Yield the ids of the nodes that a node's declared inputs lead to, as far as there are such nodes."""
    inputs = _raw(prompt, node_id)
    for name in types[node_id].inputs:
        link = _link(inputs.get(name))
        if link and link.source in types:
            yield link.source


def _raw(prompt: Workflow, node_id: str) -> Mapping[str, Any]:
    inputs = prompt[node_id].get("inputs")
    return inputs if isinstance(inputs, Mapping) else {}


def _link(value: Any) -> NodeLink | None:
    """Return what a list of a node's id and a slot links to; None for anything else."""
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004  (id and slot)
        return None
    source, slot = value
    if isinstance(source, bool) or not isinstance(source, str | int) or isinstance(slot, bool):
        return None
    return NodeLink(str(source), slot) if isinstance(slot, int) and slot >= 0 else None


def _order(prompt: Workflow, types: Mapping[str, NodeType], outputs: list[str]) -> list[str]:
    """Return the nodes that the outputs need, sources first; raises WorkflowRefused for a cycle."""
    done: dict[str, None] = {}
    path: dict[str, Iterator[str]] = {}
    for output in outputs:
        if output not in done:
            path[output] = _links(prompt, types, output)
        while path:
            node_id = next(reversed(path))
            source = next(path[node_id], None)
            if source is None:
                done[node_id] = None
                del path[node_id]
            elif source in path:
                around = [*list(path)[list(path).index(source) :], source]
                raise WorkflowRefused(
                    "dependency_cycle", "Dependency cycle detected", " <- ".join(around), cycle_nodes=around[:-1]
                )
            elif source not in done:
                path[source] = _links(prompt, types, source)
    return list(done)


def _needs(output: str, given: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the nodes that an output needs, itself too."""
    found: set[str] = set()
    waiting = [output]
    while waiting:
        node_id = waiting.pop()
        if node_id not in found:
            found.add(node_id)
            waiting += [value.source for value in given[node_id].values() if isinstance(value, NodeLink)]
    return found


# One node


def _inputs(
    prompt: Workflow, types: Mapping[str, NodeType], node_id: str, catalog: Catalog
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the inputs of a node, and what is wrong with them."""
    raw = _raw(prompt, node_id)
    given: dict[str, Any] = {}
    errors = []
    for name, declared in types[node_id].inputs.items():
        try:
            given[name] = _input(name, declared, raw, types, catalog)
        except BadValue as bad:
            extra = {"input_name": name, "input_config": declared.published(catalog)}
            if name in raw:
                extra["received_value"] = _shown(raw[name])
            errors.append(_error(bad.kind, bad.message, str(bad), extra))
            link = _link(raw.get(name))
            if link and link.source in types:  # what is behind it is needed all the same, and may be wrong too
                given[name] = link
    return given, errors


def _error(kind: str, message: str, details: str, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": dict(extra or {})}


def _shown(value: Any) -> Any:
    text = str(value)
    return value if isinstance(value, int | float | bool) and len(text) <= LONGEST else text[:LONGEST]


def _input(
    name: str, declared: NodeInput, raw: Mapping[str, Any], types: Mapping[str, NodeType], catalog: Catalog
) -> Any:
    value = raw.get(name)
    if isinstance(value, list):
        return _linked(name, declared, value, types)
    if value is None:
        return _left_out(name, declared, catalog, is_null=name in raw)
    if declared.is_link:
        raise BadValue(
            "bad_linked_input",
            "Bad linked input, must be a length-2 list of [node_id, slot_index]",
            f"{name}, received_value({_shown(value)})",
        )
    return converted(name, declared, value, catalog)


def _linked(name: str, declared: NodeInput, value: list[Any], types: Mapping[str, NodeType]) -> NodeLink:
    link = _link(value)
    if link is None or link.source not in types or link.slot >= len(types[link.source].outputs):
        raise BadValue(
            "bad_linked_input",
            "Bad linked input, must be a length-2 list of [node_id, slot_index]",
            f"{name}, received_value({_shown(value)})",
        )
    received = types[link.source].outputs[link.slot]
    if received != declared.type and (received, declared.type) != ("INT", "FLOAT"):
        raise BadValue(
            "return_type_mismatch",
            "Return type mismatch between linked nodes",
            f"{name}, received_type({received}) mismatch input_type({declared.type})",
        )
    return link


def _left_out(name: str, declared: NodeInput, catalog: Catalog, *, is_null: bool) -> Any:
    """Return what a missing input means; a null means the default, or the model's own setting."""
    if declared.optional or (is_null and declared.from_model):
        return declared.default if declared.optional else None
    if is_null and not declared.is_link:
        names = declared.names(catalog) if declared.listed and not declared.open_list else []
        default = names[0] if names else declared.default
        if default is not None:
            return default
    raise BadValue("required_input_missing", "Required input is missing", name)


def converted(name: str, declared: NodeInput, value: Any, catalog: Catalog) -> Any:
    """Return a value of an input's type; raises BadValue."""
    if declared.type == "COMBO":
        return _chosen(name, declared, value, catalog)
    try:
        made = _CONVERSIONS[declared.type](value)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadValue(
            "invalid_input_type",
            f"Failed to convert an input value to a {declared.type} value",
            f"{name}, {_shown(value)}, {_shown(error)}",
        ) from error
    if declared.least is not None and made < declared.least:
        raise BadValue("value_smaller_than_min", f"Value {_shown(made)} smaller than min of {declared.least}", name)
    if declared.most is not None and made > declared.most:
        raise BadValue("value_bigger_than_max", f"Value {_shown(made)} bigger than max of {declared.most}", name)
    return made


def _chosen(name: str, declared: NodeInput, value: Any, catalog: Catalog) -> str:
    names = declared.names(catalog)
    is_known = isinstance(value, str) and (
        value in names
        or declared.open_list
        or (declared.listed is not None and catalog.model(declared.listed, value) is not None)
    )
    if not is_known:
        offered = str(names[:SHOWN]) if len(names) <= SHOWN else f"(list of length {len(names)})"
        raise BadValue("value_not_in_list", "Value not in list", f"{name}: '{_shown(value)}' not in {offered}")
    return str(value)


def _integer(value: Any) -> int:
    if isinstance(value, str) and len(value) > LONGEST:
        raise ValueError("too long for a number")
    return int(value)


def _float(value: Any) -> float:
    made = float(value)
    if not math.isfinite(made):
        raise ValueError("not a finite number")
    return made


def _string(value: Any) -> str:
    if isinstance(value, Mapping):
        raise TypeError("not a text")
    return str(value)


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {"INT": _integer, "FLOAT": _float, "STRING": _string, "BOOLEAN": bool}
