"""The submitted workflow, stored with the queue item, and the mapping from node ids of the graph to ComfyUI's.

It is the value of a string node without edges, so it is deleted and retried with the item, and embedded in the images.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import orjson
from pydantic import TypeAdapter, ValidationError

from invokeclone.graph.builder import GraphBuilder
from invokeclone.shims.comfyui.node_types import PREFIX
from invokeclone.shims.comfyui.nodes.images import SAVE_ROLE

NODE = f"{PREFIX}workflow"
_GRAPH_ID = re.compile(rf"{PREFIX}(\d+)_(\w+?)(\d*)")


@dataclass(frozen=True)
class PromptRecord:
    """A workflow as a client submitted it."""

    prompt: dict[str, Any]
    outputs: list[str]
    """Ids of the output nodes that run."""
    client_id: str | None = None
    extra_data: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Return the stored record; None for any other text, because clients may give this id to any node."""
        try:
            prompt_record = TypeAdapter(cls).validate_json(text, strict=True)
        except ValidationError:
            return None
        is_valid = all(
            isinstance(node, dict) and isinstance(node.get("class_type"), str) for node in prompt_record.prompt.values()
        )
        return prompt_record if is_valid else None

    @property
    def ids(self) -> list[str]:
        """ComfyUI's node ids by position."""
        return list(self.prompt)

    def class_of(self, node_id: str) -> str:
        """Return the type of a node of the workflow."""
        return str(self.prompt[node_id]["class_type"])

    @property
    def workflow_id(self) -> str | None:
        """The id of the editor's workflow that the prompt was made from."""
        return workflow_id(self.extra_data)

    def is_sent(self, node_id: str) -> bool:
        """Return whether the images of a node are sent over the WebSocket, and are neither outputs nor in the history."""
        return self.class_of(node_id) == "SaveImageWebsocket"


def workflow_id(extra_data: Mapping[str, Any]) -> str | None:
    """Return the id of the editor's workflow in a prompt's extra data."""
    value: Any = extra_data
    for name in ("extra_pnginfo", "workflow", "id"):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else None


def add_to_graph(builder: GraphBuilder, prompt_record: PromptRecord) -> None:
    """Store the workflow in a graph."""
    builder.node(NODE, "string", value=orjson.dumps(asdict(prompt_record)).decode())


def of_session(session: Mapping[str, Any]) -> PromptRecord | None:
    """Return the workflow of a session; None if it has none."""
    node = session["graph"]["nodes"].get(NODE)
    return PromptRecord.read(str(node.get("value"))) if node else None


def comfy_id(ids: list[str], graph_id: str) -> str | None:
    """Return the ComfyUI id for a node of the graph; None if it belongs to no ComfyUI node."""
    match = _GRAPH_ID.fullmatch(graph_id)
    return ids[int(match[1])] if match and int(match[1]) < len(ids) else None


def is_saved(graph_id: str) -> bool:
    """Return whether the image of a node of the graph is a result of an output node."""
    match = _GRAPH_ID.fullmatch(graph_id)
    return match is not None and match[2] == SAVE_ROLE


def image_index(graph_id: str) -> int:
    """Return the index of an image among those of its output node."""
    match = _GRAPH_ID.fullmatch(graph_id)
    return int(match[3] or 0) if match else 0
