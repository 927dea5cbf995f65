"""Frames that clients get over the WebSocket: JSON messages, previews and images."""

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from invokeclone.kit.errors import NotFound
from invokeclone.kit.resources import Resources
from invokeclone.shims import image_io

JPEG, PNG = 1, 2
"""Image formats in a binary frame."""
IMAGE = 1
"""The type of a binary frame with an image: a preview or, of a SaveImageWebsocket node, a result."""


@dataclass(frozen=True)
class ImageFrame:
    """A frame with a stored image, which is read only when it is sent."""

    resources: Resources
    image_name: str

    async def read(self) -> bytes | None:
        """Return the binary frame; None if the image was deleted."""
        try:
            return _image_frame(PNG, await image_io.read_image_file(self.resources, self.image_name))
        except (NotFound, OSError):
            return None


Frame = str | bytes | ImageFrame


def encode_message(kind: str, data: Mapping[str, Any]) -> str:
    """Return a JSON message."""
    return orjson.dumps({"type": kind, "data": data}).decode()


def encode_preview(data_url: str) -> bytes:
    """Return the binary frame of a preview."""
    kind, _, base64_data = data_url.partition(";base64,")
    return _image_frame(PNG if kind.endswith("png") else JPEG, base64.b64decode(base64_data))


def _image_frame(image_format: int, data: bytes) -> bytes:
    return struct.pack(">II", IMAGE, image_format) + data


def executing_data(prompt_id: str, node_id: str | None) -> dict[str, Any]:
    """Return the data of a message that a node runs; without a node, that the prompt has ended."""
    display = {} if node_id is None else {"display_node": node_id}
    return {"node": node_id, **display, "prompt_id": prompt_id}


def status_data(remaining: int, client_id: str | None) -> dict[str, Any]:
    """Return the data of a message with the number of open prompts; `client_id` only for a new connection."""
    sid = {} if client_id is None else {"sid": client_id}
    return {"status": {"exec_info": {"queue_remaining": remaining}}, **sid}
