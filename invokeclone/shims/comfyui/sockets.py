"""ComfyUI's WebSocket: sends clients the progress of their prompts, and always their end.

Frames of a running prompt follow the server's events. Its end is read from the queue's row, so that failed, canceled
and deleted prompts are closed too, and a client that was disconnected gets the end of its prompts when it reconnects.
On a shared database, rows of prompts that another server enqueued are read after its events.
"""

import asyncio
import contextlib
import functools
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fastapi import WebSocket, WebSocketDisconnect
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import HTTPConnection

from invokeclone.kit import log
from invokeclone.kit.errors import InvokeCloneError, TooMany
from invokeclone.kit.events import Bus, Event
from invokeclone.kit.process.periodic import PeriodicTask
from invokeclone.kit.requests import services_of
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database
from invokeclone.queue.events import InvocationEvent
from invokeclone.queue.rows import Item
from invokeclone.queue.schemas import ACTIVE, TERMINAL, Status
from invokeclone.shims.batch_follower import BatchFollower, BatchKey
from invokeclone.shims.comfyui import history, store
from invokeclone.shims.comfyui.events import PromptReportedEvent
from invokeclone.shims.comfyui.frames import Frame, ImageFrame, encode_message, executing_data, status_data
from invokeclone.shims.comfyui.progress import OpenPrompt, count_images, wants_previews
from invokeclone.shims.comfyui.record import PromptRecord
from invokeclone.shims.comfyui.store import StoredPrompt
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
_log = log.get("shims.comfyui")


class TooManySockets(TooMany):
    """The user has too many open sockets."""


@dataclass(eq=False)
class Socket:
    """A connection and its pending frames."""

    frames: asyncio.Queue[Frame | None] = field(default_factory=asyncio.Queue)
    remaining: int | None = None
    """The number of open prompts that was last sent; None when it must be sent again even if it has not changed."""

    def enqueue(self, frame: Frame, *, is_step: bool = False) -> None:
        """Queue a frame; a client that does not read is disconnected in the end."""
        backlog = self.frames.qsize()
        if backlog < (BACKLOG_OF_STEPS if is_step else BACKLOG):
            self.frames.put_nowait(frame)
        elif backlog == BACKLOG:
            self.frames.put_nowait(None)

    def enqueue_message(self, kind: str, data: Mapping[str, Any]) -> None:
        """Queue a JSON message."""
        self.enqueue(encode_message(kind, data))


class PromptObserver:
    """Observes the batch of a prompt for its client."""

    node_events: ClassVar[tuple[type[InvocationEvent], ...]] = (InvocationEvent,)

    def __init__(self, clients: "Clients", prompt: OpenPrompt) -> None:
        self._clients = clients
        self._prompt = prompt

    def handle_event(self, kind: type[Event], payload: dict[str, Any]) -> None:
        """Send the frames of an event."""
        self._prompt.handle_event(kind, payload)

    async def refresh(self, database: Database, items: Sequence[Item]) -> None:
        """Close the prompt once it has ended; an id that was used again refers to its newest item."""
        await self._clients.update_prompt(database, self._prompt, items[-1] if items else None)


class Clients:
    """The connected clients and the prompts that they wait for; one instance per server."""

    def __init__(self, resources: Resources, follower: BatchFollower, bus: Bus) -> None:
        self._resources = resources
        self._follower = follower
        self._is_shared = resources.database.is_shared
        self._newest_id: int | None = None
        """The item up to which prompts of other servers have been read; None without sockets."""
        self._sockets: defaultdict[tuple[str, str], set[Socket]] = defaultdict(set)
        self._open_prompts: dict[BatchKey, OpenPrompt] = {}
        self._closed: OrderedDict[BatchKey, None] = OrderedDict()
        self._missed: OrderedDict[BatchKey, OpenPrompt] = OrderedDict()
        """Prompts that were deleted while their client was disconnected."""
        if self._is_shared:
            bus.subscribe(self._on_reported, PromptReportedEvent)

    def _follow(self, prompt: OpenPrompt) -> None:
        self._open_prompts[prompt.key] = prompt
        self._follower.follow(prompt.key, PromptObserver(self, prompt))

    @property
    def socket_count(self) -> int:
        """Number of open sockets."""
        return sum(len(sockets) for sockets in self._sockets.values())

    # Prompts

    def follow_prompt(
        self, prompt_id: str, user: User, prompt_record: PromptRecord, graph_ids: Sequence[str], previews: bool
    ) -> None:
        """Follow a prompt that is about to be enqueued; `graph_ids` are the node ids of its graph.

        `previews` is whether its client gets previews if it does not say so itself.
        """
        client_id = prompt_record.client_id
        if client_id is not None:
            prompt = self._prompt(prompt_id, user.user_id, client_id, prompt_record)
            prompt.image_counts = count_images(prompt_record, graph_ids)
            prompt.previews = wants_previews(prompt_record, default=previews)
            self._follow(prompt)

    def _prompt(self, prompt_id: str, user_id: str, client_id: str, prompt_record: PromptRecord) -> OpenPrompt:
        return OpenPrompt(self, self._resources, prompt_id, user_id, client_id, prompt_record)

    def mark_enqueued(self, prompt_id: str, user: User) -> None:
        """Record that a prompt is in the queue: from now on, a missing row means that it was deleted."""
        prompt = self._open_prompts.get(BatchKey(user.user_id, prompt_id))
        if prompt is not None:
            prompt.is_enqueued = True
        self._follower.request_refresh()

    def forget(self, prompt_id: str, user: User) -> None:
        """Stop following a prompt that was not enqueued."""
        self._unfollow(BatchKey(user.user_id, prompt_id))

    def _unfollow(self, key: BatchKey) -> None:
        self._open_prompts.pop(key, None)
        self._follower.unfollow(key)

    def send(self, user_id: str, client_id: str, frame: Frame, *, is_step: bool = False) -> bool:
        """Send a frame to a client; return whether it is connected."""
        sockets = self._sockets_of(user_id, client_id)
        for socket in sockets:
            socket.enqueue(frame, is_step=is_step)
        return bool(sockets)

    def _sockets_of(self, user_id: str, client_id: str) -> set[Socket]:
        return self._sockets.get((user_id, client_id), set())

    # Queue rows

    async def update_prompt(self, database: Database, prompt: OpenPrompt, item: Item | None) -> None:
        """Close a prompt that has ended or was deleted."""
        if not prompt.is_enqueued:
            return
        if item is None:
            self._close_deleted(prompt)
        elif item.status in TERMINAL:
            entries = await history.entries_of(database, [item])
            if prompt.prompt_id in entries:
                sent_images = await history.images_to_send(database, item, prompt.prompt_record)
                prompt.report_ended(item, entries[prompt.prompt_id], sent_images)
                self._close(prompt)

    def _close_deleted(self, prompt: OpenPrompt) -> None:
        """Close a prompt that was deleted; a client that is disconnected gets its end when it reconnects."""
        prompt.report_deleted()
        self._close(prompt)
        if prompt.key not in self._closed:
            _add_bounded(self._missed, prompt.key, prompt, MAX_MISSED_PROMPTS)

    def _close(self, prompt: OpenPrompt) -> None:
        self._unfollow(prompt.key)
        sockets = self._sockets_of(prompt.user_id, prompt.client_id)
        for socket in sockets:
            # Some clients wait for the number after the end of a prompt, and it is unchanged if the prompt was quick.
            socket.remaining = None
        if sockets:
            _add_bounded(self._closed, prompt.key, None, MAX_CLOSED_IDS)
            if self._is_shared:
                event = PromptReportedEvent(
                    prompt_id=prompt.prompt_id, user_id=prompt.user_id, client_id=prompt.client_id
                )
                self._resources.events.emit(event)

    def _on_reported(self, _kind: type[Event], payload: dict[str, Any]) -> None:
        """Do not report the end of a prompt again that another server has reported to its client."""
        if not self._sockets_of(payload["user_id"], payload["client_id"]):
            key = BatchKey(payload["user_id"], payload["prompt_id"])
            _add_bounded(self._closed, key, None, MAX_CLOSED_IDS)
            self._missed.pop(key, None)

    async def refresh(self, database: Database) -> None:
        """Send each client the number of its user's open prompts, if it has changed; follow those of other servers."""
        if self._newest_id is not None:
            await self._follow_newer(database, self._newest_id)
        users = {user_id for user_id, _ in self._sockets}
        async with database.read() as connection:
            counts = {user_id: await store.count_active(connection, user_id) for user_id in users}
        for (user_id, _), sockets in self._sockets.items():
            remaining = counts.get(user_id)  # none for a user who has connected in the meantime
            for socket in sockets:
                if remaining is not None and remaining != socket.remaining:
                    socket.remaining = remaining
                    socket.enqueue_message("status", status_data(remaining, client_id=None))

    async def _follow_newer(self, database: Database, newest_id: int) -> None:
        """Follow the prompts of connected clients that were enqueued since, by another server."""
        async with database.read() as connection:
            items = await store.list_newer(connection, newest_id)
        if not items or self._newest_id is None:  # the last socket was closed in the meantime
            return
        self._newest_id = items[-1].item_id
        users = {user_id for user_id, _ in self._sockets}
        new_items = [item for item in items if item.user_id in users and _key(item) not in self._open_prompts]
        prompts = await store.prompts(database, [item.item_id for item in new_items])
        for item in new_items:
            prompt = prompts.get(item.item_id)
            client_id = prompt.prompt_record.client_id if prompt else None
            if prompt and client_id and self._sockets_of(item.user_id, client_id):
                self._resume_prompt(item, prompt, client_id)
        self._follower.request_refresh()  # some may have ended

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
        sender = asyncio.create_task(_send_frames(websocket, socket))
        checks = _access_checks(websocket, check_access)
        checks.start()
        try:
            await self._greet(socket, user, client_id)
            while (await websocket.receive())["type"] != "websocket.disconnect":
                pass
        finally:
            self._disconnect(socket, user, client_id)
            await checks.stop()
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _greet(self, socket: Socket, user: User, client_id: str) -> None:
        """Send a new client the queue's status, and follow its prompts that run or ended while it was disconnected.

        Prompts whose end it has not been told count as open: some clients take an empty queue for the end of theirs.
        """
        async with self._resources.database.read() as connection:
            remaining = await store.count_active(connection, user.user_id)
            items = await self._list_open(connection, user, TERMINAL, MAX_RECENTLY_ENDED)
        ended = await self._prompts_of(items, client_id)
        missed = self._list_missed(user, client_id)
        socket.remaining = remaining + len(ended) + len(missed)
        socket.enqueue_message("status", status_data(socket.remaining, client_id))
        self._sockets[user.user_id, client_id].add(socket)
        self._follower.add_queue_observer(self)
        async with self._resources.database.read() as connection:
            if self._is_shared:
                newest_id = await store.newest_id(connection)
                self._newest_id = min(newest_id, newest_id if self._newest_id is None else self._newest_id)
            items = await self._list_open(connection, user, ACTIVE, store.MAX_ROWS)
            items += await self._list_open(connection, user, TERMINAL, MAX_RECENTLY_ENDED)
        for item, prompt in await self._prompts_of(items, client_id):
            open_prompt = self._open_prompts.get(_key(item))
            if open_prompt is None:
                self._resume_prompt(item, prompt, client_id)
            elif open_prompt.current is not None:
                socket.enqueue_message("executing", executing_data(open_prompt.prompt_id, open_prompt.current))
        for missed_prompt in self._list_missed(user, client_id):
            self._follow(self._missed.pop(missed_prompt.key))
        self._follower.request_refresh()

    async def _list_open(
        self, connection: AsyncConnection, user: User, statuses: Sequence[Status], newest: int
    ) -> list[Item]:
        """Return the newest prompts of a user, in these statuses, whose end their clients have not been told."""
        listed = await store.list_items(connection, user, statuses=statuses, newest=newest)
        return [item for item in listed if _key(item) not in self._closed]

    async def _prompts_of(self, items: Sequence[Item], client_id: str) -> list[tuple[Item, StoredPrompt]]:
        """Return those of the items that are prompts of a client, with their workflows."""
        prompts = await store.prompts(self._resources.database, [item.item_id for item in items])
        pairs = [(item, prompts[item.item_id]) for item in items if item.item_id in prompts]
        return [(item, prompt) for item, prompt in pairs if prompt.prompt_record.client_id == client_id]

    def _list_missed(self, user: User, client_id: str) -> list[OpenPrompt]:
        return [
            prompt
            for prompt in self._missed.values()
            if (prompt.user_id, prompt.client_id) == (user.user_id, client_id)
        ]

    def _resume_prompt(self, item: Item, stored: StoredPrompt, client_id: str) -> None:
        """Follow a prompt of a connected client; the next refresh closes one that has ended."""
        if _key(item) not in self._closed:
            prompt_record = stored.prompt_record
            prompt = self._prompt(item.batch_id, item.user_id, client_id, prompt_record)
            prompt.image_counts = count_images(prompt_record, stored.graph_ids)
            prompt.previews = wants_previews(prompt_record, default=self._resources.settings.comfyui_previews)
            prompt.is_enqueued = True
            self._follow(prompt)

    def _disconnect(self, socket: Socket, user: User, client_id: str) -> None:
        sockets = self._sockets[user.user_id, client_id]
        sockets.discard(socket)
        if not sockets:
            del self._sockets[user.user_id, client_id]
        if not self._sockets:
            self._newest_id = None
            self._follower.remove_queue_observer(self)


def _key(item: Item) -> BatchKey:
    return BatchKey(item.user_id, item.batch_id)


def _add_bounded(entries: OrderedDict[BatchKey, Any], key: BatchKey, value: Any, limit: int) -> None:
    """Add an entry and evict the oldest."""
    entries[key] = value
    while len(entries) > limit:
        entries.popitem(last=False)


async def _send_frames(websocket: WebSocket, socket: Socket) -> None:
    """Send the pending frames until the connection closes, its client is too slow, or a frame cannot be read."""
    with contextlib.suppress(RuntimeError, OSError, WebSocketDisconnect):  # it was closed in the meantime
        while (frame := await socket.frames.get()) is not None:
            try:
                content = await frame.read() if isinstance(frame, ImageFrame) else frame
            except Exception:  # noqa: BLE001  (the client reconnects, and gets what it has missed)
                _log.exception("cannot read a frame for a client")
                await websocket.close(1011)
                return
            if isinstance(content, str):
                await websocket.send_text(content)
            elif content is not None:
                await websocket.send_bytes(content)
        await websocket.close(1013)


def _access_checks(websocket: WebSocket, check_access: Callable[[], Awaitable[object]]) -> PeriodicTask:
    """Return the task that closes the connection once its client has lost access; other errors revoke none."""
    check = functools.partial(_check_access, websocket, check_access)
    failure = "cannot check whether a client still has access"
    return PeriodicTask("check_access", check, ACCESS_CHECK_INTERVAL_S, failure=failure, logger=_log, at_once=False)


async def _check_access(websocket: WebSocket, check_access: Callable[[], Awaitable[object]]) -> None:
    """Close the connection if its client has lost access."""
    try:
        await check_access()
    except InvokeCloneError:
        with contextlib.suppress(RuntimeError, OSError):
            await websocket.close(1008)


def clients_of(connection: HTTPConnection) -> Clients:
    """Return the application's Clients."""
    return services_of(connection).get(Clients)
