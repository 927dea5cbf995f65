"""A prompt that has not ended, and the frames that its client gets of it."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from invokeclone.kit.events import Event
from invokeclone.kit.resources import Resources
from invokeclone.queue.events import (
    InvocationCompleteEvent,
    InvocationEvent,
    InvocationProgressEvent,
    InvocationStartedEvent,
)
from invokeclone.queue.rows import Item
from invokeclone.shims.batch_follower import BatchKey
from invokeclone.shims.comfyui import history, record
from invokeclone.shims.comfyui.frames import Frame, ImageFrame, encode_message, encode_preview, executing_data
from invokeclone.shims.comfyui.history import SavedImage
from invokeclone.shims.comfyui.record import PromptRecord

PREVIEW_METHODS = ("auto", "latent2rgb", "taesd")
"""Values of `extra_data.preview_method` that ask for previews, which are the same for all."""
NO_PREVIEWS = "none"


class FrameSender(Protocol):
    """The connections of clients."""

    def send(self, user_id: str, client_id: str, frame: Frame, *, is_step: bool = False) -> bool:
        """Send a frame to a client; return whether it is connected."""
        ...


def wants_previews(prompt_record: PromptRecord, *, default: bool) -> bool:
    """Return whether a prompt's client gets previews: what it asks for, else the server's setting."""
    method = prompt_record.extra_data.get("preview_method")
    return method in PREVIEW_METHODS or (default and method != NO_PREVIEWS)


@dataclass
class OpenPrompt:
    """A prompt that has not ended, as far as is known."""

    sender: FrameSender
    resources: Resources
    prompt_id: str
    user_id: str
    client_id: str
    prompt_record: PromptRecord
    image_counts: Mapping[str, int] = field(default_factory=dict)
    """Number of images of each output node; empty if unknown."""
    previews: bool = False
    """Whether previews are sent."""
    is_enqueued: bool = False
    has_started: bool = False
    current: str | None = None
    """The running node."""
    images: defaultdict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    reported_nodes: set[str] = field(default_factory=set)
    """The output nodes whose images have been reported to the client."""
    sent_images: set[tuple[str, int]] = field(default_factory=set)
    """The images of SaveImageWebsocket nodes that were sent: node and index."""

    @property
    def key(self) -> BatchKey:
        """The prompt as its user's."""
        return BatchKey(self.user_id, self.prompt_id)

    def handle_event(self, kind: type[Event], payload: dict[str, Any]) -> None:
        """Send the frames of an event of the prompt's item."""
        if issubclass(kind, InvocationEvent):
            self.report_start(history.now_ms())
            self._report_event(kind, payload)
        elif payload.get("status") == "in_progress":
            self.report_start(history.now_ms())

    def report_start(self, timestamp_ms: int) -> None:
        """Report that the prompt has started, once."""
        if not self.has_started:
            self.has_started = True
            for message in history.start_messages(self.prompt_id, timestamp_ms):
                self.send(*message)

    def _report_event(self, kind: type[Event], payload: dict[str, Any]) -> None:
        graph_id = payload["invocation_source_id"]
        node_id = record.comfy_id(self.prompt_record.ids, graph_id)
        if node_id is None:
            return
        if issubclass(kind, InvocationStartedEvent | InvocationProgressEvent) and node_id != self.current:
            self.current = node_id
            self.report_current()
        if issubclass(kind, InvocationProgressEvent):
            self._report_progress(node_id, payload)
        elif issubclass(kind, InvocationCompleteEvent) and record.is_saved(graph_id):
            self._report_image(node_id, record.image_index(graph_id), payload["result"]["image"]["image_name"])

    def report_current(self) -> None:
        """Report the running node."""
        self.send("executing", executing_data(self.prompt_id, self.current))

    def _report_progress(self, node_id: str, payload: dict[str, Any]) -> None:
        fraction = payload.get("percentage")
        if fraction is not None:
            total_steps = payload["invocation"].get("steps") or 100
            self._report_steps(node_id, round(fraction * total_steps), total_steps)
        if self.previews and (image := payload.get("image")):
            self._send_frame(encode_preview(image["dataURL"]), is_step=True)

    def _report_steps(self, node_id: str, value: int, maximum: int) -> None:
        data = {"value": value, "max": maximum, "prompt_id": self.prompt_id, "node": node_id}
        self._send_frame(encode_message("progress", data), is_step=True)

    def _report_image(self, node_id: str, index: int, image_name: str) -> None:
        """Report an image of an output node: those of a SaveImageWebsocket node at once, others when all are there."""
        if self.prompt_record.is_sent(node_id):
            self.send_image(node_id, index, image_name)
            return
        node_images = self.images[node_id]
        node_images[index] = image_name
        if len(node_images) == self.image_counts.get(node_id):
            names = [node_images[number] for number in sorted(node_images)]
            images = [history.image_reference(self.prompt_record, node_id, name) for name in names]
            self.report_output(node_id, {"images": images})

    def send_image(self, node_id: str, index: int, image_name: str) -> None:
        """Send an image of a SaveImageWebsocket node, unless the client has it already."""
        if (node_id, index) in self.sent_images:
            return
        if self._send_frame(ImageFrame(self.resources, image_name)):
            self.sent_images.add((node_id, index))
        if count := self.image_counts.get(node_id):
            self._report_steps(node_id, index + 1, count)

    def report_output(self, node_id: str, output: Mapping[str, Any]) -> None:
        """Report the images of an output node."""
        self.reported_nodes.add(node_id)
        self.send("executed", {"node": node_id, "display_node": node_id, "prompt_id": self.prompt_id, "output": output})

    def report_deleted(self) -> None:
        """Report the end of a prompt that was deleted, as interrupted."""
        data: dict[str, Any] = {
            "prompt_id": self.prompt_id,
            "node_id": self.current,
            "node_type": self.prompt_record.class_of(self.current) if self.current else None,
            "executed": [],
            "timestamp": history.now_ms(),
        }
        self.send("execution_interrupted", data)
        self._report_end()

    def report_ended(self, item: Item, entry: Mapping[str, Any], sent_images: Sequence[SavedImage]) -> None:
        """Report the end of a prompt and what the client has missed of it; `entry` is that of the history."""
        if item.started_at:
            self.report_start(history.milliseconds(item.started_at))
        for image in sent_images:
            if (image.node_id, image.number) not in self.sent_images:
                if self.current != image.node_id:
                    self.current = image.node_id
                    self.report_current()
                self.send_image(*image)
        for node_id, output in entry["outputs"].items():
            if node_id not in self.reported_nodes:
                self.report_output(node_id, output)
        self.send(*entry["status"]["messages"][-1])
        self._report_end()

    def _report_end(self) -> None:
        """Send the message that clients wait for."""
        self.send("executing", executing_data(self.prompt_id, None))

    def send(self, kind: str, data: Mapping[str, Any]) -> None:
        """Send a JSON message to the client."""
        self._send_frame(encode_message(kind, data))

    def _send_frame(self, frame: Frame, *, is_step: bool = False) -> bool:
        return self.sender.send(self.user_id, self.client_id, frame, is_step=is_step)


def count_images(prompt_record: PromptRecord, graph_ids: Sequence[str]) -> dict[str, int]:
    """Return the number of images of each output node; `graph_ids` are the node ids of the graph."""
    counts = Counter(record.comfy_id(prompt_record.ids, node) for node in graph_ids if record.is_saved(node))
    return {node_id: count for node_id, count in counts.items() if node_id is not None}
