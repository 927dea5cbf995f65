"""Main models and the separate models of a workflow that are used together; ComfyUI's nodes load them apart."""

from typing import Any

from invokeclone.shims.comfyui.node_types import NodeType
from invokeclone.shims.comfyui.nodes import TYPES
from invokeclone.shims.comfyui.workflow import NodeLink, ValidatedWorkflow

_MODEL, _ENCODERS = "MODEL", "CLIP"
_MAIN_MODELS = "checkpoints"
"""The catalog's list of main models."""
_PARTS = ("text_encoders", "vae")
"""The catalog's lists of models that are parts of main models."""


def separate_models_of(checked: ValidatedWorkflow, prompt: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the lists and names of the text encoders and VAEs that nodes load by name."""
    parts = []
    for node_id in checked.order:
        declared = TYPES[prompt[node_id]["class_type"]].inputs
        for name, value in checked.inputs[node_id].items():
            list_name = declared[name].list_name
            if list_name in _PARTS and isinstance(value, str):
                parts.append((list_name, value))
    return parts


def main_model_of(node_id: str, kind: NodeType, checked: ValidatedWorkflow, prompt: dict[str, Any]) -> str | None:
    """Return the name of the main model of the first node that uses a node's text encoders and a model.

    None for nodes that load no text encoders or load them with a main model, and if no such model is named.
    """
    if _ENCODERS not in kind.outputs or _link_of(node_id, _ENCODERS, checked, prompt) or _MODEL in kind.outputs:
        return None
    users = {node_id}
    for other in checked.order:  # sources first
        if not any(isinstance(value, NodeLink) and value.source in users for value in checked.inputs[other].values()):
            continue
        users.add(other)
        if link := _link_of(other, _MODEL, checked, prompt):
            return _name(link.source, checked, prompt)
    return None


def _name(node_id: str, checked: ValidatedWorkflow, prompt: dict[str, Any]) -> str | None:
    """Return the name of the main model that the first of a chain of nodes loads; None if it is linked."""
    while link := _link_of(node_id, _MODEL, checked, prompt):
        node_id = link.source
    declared = TYPES[prompt[node_id]["class_type"]].inputs
    names = [value for name, value in checked.inputs[node_id].items() if declared[name].list_name == _MAIN_MODELS]
    return next((name for name in names if isinstance(name, str)), None)


def _link_of(node_id: str, type_name: str, checked: ValidatedWorkflow, prompt: dict[str, Any]) -> NodeLink | None:
    """Return the link of a node's first input of a type."""
    declared = TYPES[prompt[node_id]["class_type"]].inputs
    values = (value for name, value in checked.inputs[node_id].items() if declared[name].type == type_name)
    return next((value for value in values if isinstance(value, NodeLink)), None)
