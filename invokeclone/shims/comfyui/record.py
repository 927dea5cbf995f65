"""The workflow as it was sent, kept with the queue's item, and the ids of our nodes read back as ComfyUI's.

It is the value of a text node that nothing is connected to: so it lives and goes with the item, is repeated with it, and is
embedded in the pictures.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import orjson
from pydantic import TypeAdapter, ValidationError

from invokeclone.graph.builder import GraphBuilder
from invokeclone.shims.comfyui.nodes.images import SAVED
from invokeclone.shims.comfyui.vocabulary import PREFIX

NODE = f"{PREFIX}workflow"
_OURS = re.compile(rf"{PREFIX}(\d+)_(\w+?)(\d*)")


@dataclass(frozen=True)
class PromptRecord:
    """A workflow as a client sent it."""

    prompt: dict[str, Any]
    outputs: list[str]
    """Ids of the output nodes that run."""
    client_id: str | None = None
    extra_data: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Return what was kept; None for a text of somebody else's, as any client may give any name to a node."""
        try:
            kept = TypeAdapter(cls).validate_json(text, strict=True)
        except ValidationError:
            return None
        known = all(isinstance(node, dict) and isinstance(node.get("class_type"), str) for node in kept.prompt.values())
        return kept if known else None

    @property
    def ids(self) -> list[str]:
        """ComfyUI's ids by position."""
        return list(self.prompt)

    def class_of(self, node_id: str) -> str:
        """Return the type of a node of the workflow."""
        return str(self.prompt[node_id]["class_type"])


def put(builder: GraphBuilder, kept: PromptRecord) -> None:
    """Keep the workflow in a graph."""
    builder.node(NODE, "string", value=orjson.dumps(asdict(kept)).decode())


def of_session(session: Mapping[str, Any]) -> PromptRecord | None:
    """Return the workflow of a session; None when it has none."""
    node = session["graph"]["nodes"].get(NODE)
    return PromptRecord.read(str(node.get("value"))) if node else None


def comfy_id(ids: list[str], ours: str) -> str | None:
    """Return the id in the workflow of a node of ours; None when it stands for none."""
    found = _OURS.fullmatch(ours)
    return ids[int(found[1])] if found and int(found[1]) < len(ids) else None


def is_saved(ours: str) -> bool:
    """Whether the picture of a node of ours is one of an output node's."""
    found = _OURS.fullmatch(ours)
    return found is not None and found[2] == SAVED


def number(ours: str) -> int:
    """Return which of an output node's pictures it is."""
    found = _OURS.fullmatch(ours)
    return int(found[3] or 0) if found else 0
