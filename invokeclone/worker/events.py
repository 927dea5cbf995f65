"""The four events of a running node, encoded directly as JSON.

A node's JSON is encoded once and inserted into each of its events, to keep events cheap. A test checks that the
payloads have the fields of the event classes in `queue.events`.
"""

from typing import Any, Protocol

import orjson

from invokeclone.kit.times import timestamp


class Channel(Protocol):
    """Receiver of event payloads."""

    def event(self, name: str, data: bytes, *, droppable: bool = False) -> None:
        """Send the payload of event `name`; a droppable one may be lost if the receiver is slow."""
        ...


class ItemIdentity(Protocol):
    """The fields of a queue item that its events contain."""

    @property
    def item_id(self) -> int: ...  # noqa: D102
    @property
    def queue_id(self) -> str: ...  # noqa: D102
    @property
    def batch_id(self) -> str: ...  # noqa: D102
    @property
    def origin(self) -> str | None: ...  # noqa: D102
    @property
    def destination(self) -> str | None: ...  # noqa: D102
    @property
    def user_id(self) -> str: ...  # noqa: D102
    @property
    def session_id(self) -> str: ...  # noqa: D102


class ItemEvents:
    """Creates the events of a queue item's nodes."""

    def __init__(self, channel: Channel, item: ItemIdentity, device: str) -> None:
        """Send to `channel`; progress events include `device` unless it is the CPU or MPS."""
        self.channel = channel
        self.device = device if device.startswith(("cuda", "xpu")) else None
        self.user_id = item.user_id
        self.common: dict[str, Any] = {
            "queue_id": item.queue_id,
            "item_id": item.item_id,
            "batch_id": item.batch_id,
            "origin": item.origin,
            "destination": item.destination,
            "user_id": item.user_id,
            "session_id": item.session_id,
        }

    def node(self, source_id: str, node_json: bytes) -> "NodeEvents":
        """Return the events of the node whose JSON is `node_json`, prepared from node `source_id` of the graph."""
        return NodeEvents(self, source_id, node_json)


class NodeEvents:
    """The events of one prepared node."""

    def __init__(self, item: ItemEvents, source_id: str, node_json: bytes) -> None:
        self._item = item
        self._node = {"invocation": orjson.Fragment(node_json), "invocation_source_id": source_id}

    def start(self) -> None:
        """Emit that the node starts."""
        self._item.channel.event("invocation_started", self._payload({}))

    def progress(self, message: str, percentage: float | None, image: dict[str, Any] | None) -> None:
        """Emit progress: `percentage` is 0-1 or None; `image` is a ProgressImage (width, height, dataURL) or None."""
        fields = {"message": message, "percentage": percentage, "image": image, "device": self._item.device}
        self._item.channel.event("invocation_progress", self._payload(fields), droppable=True)

    def complete(self, result_json: bytes) -> None:
        """Emit that the node is complete, with its output."""
        self._item.channel.event("invocation_complete", self._payload({"result": orjson.Fragment(result_json)}))

    def error(self, error_type: str, error_message: str, error_traceback: str) -> None:
        """Emit that the node failed; sent after the item's status change."""
        fields = {"error_type": error_type, "error_message": error_message, "error_traceback": error_traceback}
        self._item.channel.event("invocation_error", self._payload(fields))

    def _payload(self, fields: dict[str, Any]) -> bytes:
        return orjson.dumps(
            {"timestamp": timestamp(), **self._item.common, **self._node, **fields}, option=orjson.OPT_SERIALIZE_NUMPY
        )
