"""ComfyUI's WebSocket: sends clients the progress of their prompts, and always their end.

Frames of a running prompt follow the server's events. Its end is read from the queue's row, so that failed, canceled
and deleted prompts are closed too, and a client that was disconnected gets the end of its prompts when it reconnects.
"""

import asyncio
import base64
import contextlib
import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson
from fastapi import WebSocket
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import HTTPConnection

from invokeclone.kit import log
from invokeclone.kit.errors import InvokeCloneError, TooMany
from invokeclone.kit.events import Event
from invokeclone.kit.requests import services_of
from invokeclone.kit.resources import Resources
from invokeclone.kit.times import timestamp
from invokeclone.queue.events import (
    InvocationCompleteEvent,
    InvocationEvent,
    InvocationProgressEvent,
    InvocationStartedEvent,
)
from invokeclone.queue.rows import Item
from invokeclone.queue.schemas import ACTIVE, TERMINAL
from invokeclone.shims.batch_follower import BatchFollower
from invokeclone.shims.comfyui import history, record, store
from invokeclone.shims.comfyui.record import PromptRecord
from invokeclone.users.current import User

ACCESS_CHECK_INTERVAL_S = 30.0
"""Seconds between checks of whether a client still has access."""
BACKLOG = 2_000
"""Pending frames at which a slow client is disconnected."""
BACKLOG_OF_STEPS = 32
"""Pending frames at which progress and previews are dropped."""
MAX_RECENTLY_ENDED = 16
"""Recently ended prompts that are checked when a client connects, for those whose end it missed."""
MAX_CLOSED_IDS = 1_024
"""Maximum number of remembered prompts whose end was reported."""
MAX_MISSED_PROMPTS = 64
"""Maximum number of remembered prompts that were deleted while their client was disconnected."""
JPEG, PNG = 1, 2
"""Image formats in a preview frame."""
PREVIEW = 1
"""The type of a binary frame with a preview."""

_log = log.get("shims.comfyui")
Frame = str | bytes


class TooManySockets(TooMany):
    """The user has too many open sockets."""


@dataclass(eq=False)
class Socket:
    """A connection and its pending frames."""

    frames: asyncio.Queue[Frame | None] = field(default_factory=asyncio.Queue)
    remaining: int | None = None
    """The number of open prompts that was last sent."""

    def enqueue(self, frame: Frame, *, is_step: bool = False) -> None:
        """Queue a frame; a client that does not read is disconnected in the end."""
        backlog = self.frames.qsize()
        if backlog < (BACKLOG_OF_STEPS if is_step else BACKLOG):
            self.frames.put_nowait(frame)
        elif backlog == BACKLOG:
            self.frames.put_nowait(None)

    def enqueue_message(self, kind: str, data: Mapping[str, Any]) -> None:
        """Queue a JSON message."""
        self.enqueue(_encode_message(kind, data))


def _encode_message(kind: str, data: Mapping[str, Any]) -> str:
    return orjson.dumps({"type": kind, "data": data}).decode()


@dataclass
class OpenPrompt:
    """A prompt that has not ended, as far as is known."""

    prompt_id: str
    user_id: str
    client_id: str
    prompt_record: PromptRecord
    image_counts: Mapping[str, int]
    """Number of images of each output node; empty if unknown."""
    is_enqueued: bool = False
    has_started: bool = False
    current: str | None = None
    """The running node."""
    images: defaultdict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    reported_nodes: set[str] = field(default_factory=set)
    """The output nodes whose images have been reported to the client."""


class PromptObserver:
    """Observes the batch of a prompt for its client."""

    node_events: ClassVar[tuple[type[InvocationEvent], ...]] = (InvocationEvent,)

    def __init__(self, clients: "Clients", prompt: OpenPrompt) -> None:
        self._clients = clients
        self._prompt = prompt

    def handle_event(self, kind: type[Event], payload: dict[str, Any]) -> None:
        """Send the frames of an event."""
        self._clients.handle_event(self._prompt, kind, payload)

    async def refresh(self, connection: AsyncConnection, items: Sequence[Item]) -> None:
        """Close the prompt once it has ended; an id that was used again refers to its newest item."""
        await self._clients.update_prompt(connection, self._prompt, items[-1] if items else None)


class Clients:
    """The connected clients and the prompts that they wait for; one instance per server."""

    def __init__(self, resources: Resources, follower: BatchFollower) -> None:
        self._resources = resources
        self._follower = follower
        self._sockets: defaultdict[tuple[str, str], set[Socket]] = defaultdict(set)
        self._open_prompts: dict[str, OpenPrompt] = {}
        self._closed: OrderedDict[str, None] = OrderedDict()
        self._missed: OrderedDict[str, OpenPrompt] = OrderedDict()
        """Prompts that were deleted while their client was disconnected."""

    def _follow(self, prompt: OpenPrompt) -> None:
        self._open_prompts[prompt.prompt_id] = prompt
        self._follower.follow(prompt.prompt_id, PromptObserver(self, prompt))

    @property
    def socket_count(self) -> int:
        """Number of open sockets."""
        return sum(len(sockets) for sockets in self._sockets.values())

    # Prompts

    def follow_prompt(self, prompt_id: str, user: User, prompt_record: PromptRecord, graph_ids: list[str]) -> None:
        """Follow a prompt that is about to be enqueued; `graph_ids` are the node ids of its graph."""
        if prompt_record.client_id is not None:
            counts = Counter(record.comfy_id(prompt_record.ids, node) for node in graph_ids if record.is_saved(node))
            image_counts = {node_id: count for node_id, count in counts.items() if node_id is not None}
            self._follow(OpenPrompt(prompt_id, user.user_id, prompt_record.client_id, prompt_record, image_counts))

    def mark_enqueued(self, prompt_id: str) -> None:
        """Record that a prompt is in the queue: from now on, a missing row means that it was deleted."""
        if prompt_id in self._open_prompts:
            self._open_prompts[prompt_id].is_enqueued = True
        self._follower.request_refresh()

    def forget(self, prompt_id: str) -> None:
        """Stop following a prompt that was not enqueued."""
        self._unfollow(prompt_id)

    def _unfollow(self, prompt_id: str) -> None:
        self._open_prompts.pop(prompt_id, None)
        self._follower.unfollow(prompt_id)

    # Events

    def handle_event(self, prompt: OpenPrompt, kind: type[Event], payload: dict[str, Any]) -> None:
        """Send the frames of an event of a prompt's item."""
        if issubclass(kind, InvocationEvent):
            self._report_start(prompt)
            self._report_event(prompt, kind, payload)
        elif payload.get("status") == "in_progress":
            self._report_start(prompt)

    def _report_start(self, prompt: OpenPrompt) -> None:
        if not prompt.has_started:
            prompt.has_started = True
            for message in history.start_messages(prompt.prompt_id, timestamp()):
                self._send(prompt, *message)

    def _report_event(self, prompt: OpenPrompt, kind: type[Event], payload: dict[str, Any]) -> None:
        graph_id = payload["invocation_source_id"]
        node_id = record.comfy_id(prompt.prompt_record.ids, graph_id)
        if node_id is None:
            return
        if issubclass(kind, InvocationStartedEvent) and node_id != prompt.current:
            prompt.current = node_id
            self._send(prompt, "executing", _executing_data(prompt, node_id))
        elif issubclass(kind, InvocationProgressEvent):
            self._report_progress(prompt, node_id, payload)
        elif issubclass(kind, InvocationCompleteEvent) and record.is_saved(graph_id):
            node_images = prompt.images[node_id]
            node_images[record.image_index(graph_id)] = payload["result"]["image"]["image_name"]
            if len(node_images) == prompt.image_counts.get(node_id):
                images = [
                    history.image_reference(prompt.prompt_record, node_id, node_images[number])
                    for number in sorted(node_images)
                ]
                self._report_output(prompt, node_id, {"images": images})

    def _report_progress(self, prompt: OpenPrompt, node_id: str, payload: dict[str, Any]) -> None:
        fraction = payload.get("percentage")
        if fraction is not None:
            total_steps = payload["invocation"].get("steps") or 100
            data = {
                "value": round(fraction * total_steps),
                "max": total_steps,
                "prompt_id": prompt.prompt_id,
                "node": node_id,
            }
            self._send_frame(prompt, _encode_message("progress", data), is_step=True)
        if image := payload.get("image"):
            kind, _, base64_data = image["dataURL"].partition(";base64,")
            head = struct.pack(">II", PREVIEW, PNG if kind.endswith("png") else JPEG)
            self._send_frame(prompt, head + base64.b64decode(base64_data), is_step=True)

    def _report_output(self, prompt: OpenPrompt, node_id: str, output: Mapping[str, Any]) -> None:
        prompt.reported_nodes.add(node_id)
        ids = {"node": node_id, "display_node": node_id, "prompt_id": prompt.prompt_id}
        self._send(prompt, "executed", {**ids, "output": output})

    # Frames

    def _send(self, prompt: OpenPrompt, kind: str, data: Mapping[str, Any]) -> None:
        self._send_frame(prompt, _encode_message(kind, data))

    def _send_frame(self, prompt: OpenPrompt, frame: Frame, *, is_step: bool = False) -> None:
        for socket in self._sockets_of(prompt.user_id, prompt.client_id):
            socket.enqueue(frame, is_step=is_step)

    def _sockets_of(self, user_id: str, client_id: str) -> set[Socket]:
        return self._sockets.get((user_id, client_id), set())

    # Queue rows

    async def update_prompt(self, connection: AsyncConnection, prompt: OpenPrompt, item: Item | None) -> None:
        """Close a prompt that has ended or was deleted."""
        if not prompt.is_enqueued:
            return
        if item is None:
            self._close_deleted(prompt)
        elif item.status in TERMINAL:
            entries = await history.entries_of(connection, [item])
            if prompt.prompt_id in entries:
                self._close_ended(prompt, item, entries[prompt.prompt_id])

    def _close_deleted(self, prompt: OpenPrompt) -> None:
        """Close a prompt that was deleted, as interrupted."""
        node = prompt.current
        data: dict[str, Any] = {
            "prompt_id": prompt.prompt_id,
            "node_id": node,
            "node_type": prompt.prompt_record.class_of(node) if node else None,
            "executed": [],
            "timestamp": timestamp(),
        }
        self._send(prompt, "execution_interrupted", data)
        self._close(prompt)
        if prompt.prompt_id not in self._closed:
            _add_bounded(self._missed, prompt.prompt_id, prompt, MAX_MISSED_PROMPTS)

    def _close_ended(self, prompt: OpenPrompt, item: Item, entry: Mapping[str, Any]) -> None:
        if item.started_at:
            self._report_start(prompt)
        for node_id, output in entry["outputs"].items():
            if node_id not in prompt.reported_nodes:
                self._report_output(prompt, node_id, output)
        self._send(prompt, *entry["status"]["messages"][-1])
        self._close(prompt)

    def _close(self, prompt: OpenPrompt) -> None:
        """Report the end of a prompt: the message that clients wait for."""
        self._unfollow(prompt.prompt_id)
        self._send(prompt, "executing", _executing_data(prompt, None))
        if self._sockets_of(prompt.user_id, prompt.client_id):
            _add_bounded(self._closed, prompt.prompt_id, None, MAX_CLOSED_IDS)

    async def refresh(self, connection: AsyncConnection) -> None:
        """Send each client the number of its user's open prompts, if it has changed."""
        users = {user_id for user_id, _ in self._sockets}
        counts = {user_id: await store.count_active(connection, user_id) for user_id in users}
        for (user_id, _), sockets in self._sockets.items():
            remaining = counts.get(user_id)  # none for a user who has connected in the meantime
            for socket in sockets:
                if remaining is not None and remaining != socket.remaining:
                    socket.remaining = remaining
                    socket.enqueue_message("status", _status(remaining, client_id=None))

    # Connections

    async def serve(
        self, websocket: WebSocket, user: User, client_id: str, check_access: Callable[[], Awaitable[object]]
    ) -> None:
        """Accept a connection and serve it until it closes. Raises TooManySockets before accepting it.

        `check_access` raises an InvokeCloneError when the client has lost access.
        """
        limit = self._resources.settings.limits.comfyui_sockets
        if sum(len(sockets) for (owner, _), sockets in self._sockets.items() if owner == user.user_id) >= limit:
            raise TooManySockets(f"you have {limit} connections open already (setting limits.comfyui_sockets)")
        await websocket.accept()
        socket = Socket()
        tasks = [
            asyncio.create_task(_send_frames(websocket, socket)),
            asyncio.create_task(_check_access(websocket, check_access)),
        ]
        try:
            await self._greet(socket, user, client_id)
            while (await websocket.receive())["type"] != "websocket.disconnect":
                pass
        finally:
            self._disconnect(socket, user, client_id)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _greet(self, socket: Socket, user: User, client_id: str) -> None:
        """Send a new client the queue's status, and follow its prompts that run or ended while it was disconnected."""
        async with self._resources.database.read() as connection:
            remaining = await store.count_active(connection, user.user_id)
        socket.remaining = remaining
        socket.enqueue_message("status", _status(remaining, client_id))
        self._sockets[user.user_id, client_id].add(socket)
        self._follower.add_queue_observer(self)
        async with self._resources.database.read() as connection:
            active = await store.list_items(connection, user, statuses=ACTIVE)
            terminal = await store.list_items(connection, user, statuses=TERMINAL, newest=MAX_RECENTLY_ENDED)
            items = [item for item in (*active, *terminal) if item.batch_id not in self._closed]
            records = await store.records(connection, [item.item_id for item in items])
        for item in items:
            if item.item_id in records:
                self._resume_prompt(socket, item, records[item.item_id], client_id)
        for prompt in [*self._missed.values()]:
            if (prompt.user_id, prompt.client_id) == (user.user_id, client_id):
                self._follow(self._missed.pop(prompt.prompt_id))
        self._follower.request_refresh()

    def _resume_prompt(self, socket: Socket, item: Item, prompt_record: PromptRecord, client_id: str) -> None:
        """Follow a prompt of a client that has just connected; the next refresh closes one that has ended."""
        if prompt_record.client_id != client_id:
            return
        open_prompt = self._open_prompts.get(item.batch_id)
        if open_prompt is None and item.batch_id not in self._closed:
            self._follow(OpenPrompt(item.batch_id, item.user_id, client_id, prompt_record, {}, is_enqueued=True))
        elif open_prompt is not None and open_prompt.current is not None:
            socket.enqueue_message("executing", _executing_data(open_prompt, open_prompt.current))

    def _disconnect(self, socket: Socket, user: User, client_id: str) -> None:
        sockets = self._sockets[user.user_id, client_id]
        sockets.discard(socket)
        if not sockets:
            del self._sockets[user.user_id, client_id]
        if not self._sockets:
            self._follower.remove_queue_observer(self)


def _add_bounded(entries: OrderedDict[str, Any], name: str, value: Any, limit: int) -> None:
    """Add an entry and evict the oldest."""
    entries[name] = value
    while len(entries) > limit:
        entries.popitem(last=False)


def _executing_data(prompt: OpenPrompt, node_id: str | None) -> dict[str, Any]:
    display = {} if node_id is None else {"display_node": node_id}
    return {"node": node_id, **display, "prompt_id": prompt.prompt_id}


def _status(remaining: int, client_id: str | None) -> dict[str, Any]:
    sid = {} if client_id is None else {"sid": client_id}
    return {"status": {"exec_info": {"queue_remaining": remaining}}, **sid}


async def _send_frames(websocket: WebSocket, socket: Socket) -> None:
    """Send the pending frames until the connection closes or its client is too slow."""
    with contextlib.suppress(RuntimeError, OSError):  # it was closed in the meantime
        while (frame := await socket.frames.get()) is not None:
            if isinstance(frame, str):
                await websocket.send_text(frame)
            else:
                await websocket.send_bytes(frame)
        await websocket.close(1013)


async def _check_access(websocket: WebSocket, check_access: Callable[[], Awaitable[object]]) -> None:
    """Close the connection once its client has lost access."""
    while True:
        await asyncio.sleep(ACCESS_CHECK_INTERVAL_S)
        try:
            await check_access()
        except InvokeCloneError:
            with contextlib.suppress(RuntimeError, OSError):
                await websocket.close(1008)
            return
        except Exception:  # noqa: BLE001  (an unexpected error does not revoke access)
            _log.exception("cannot check whether a client still has access")


def clients_of(connection: HTTPConnection) -> Clients:
    """Return the application's Clients."""
    return services_of(connection).get(Clients)
