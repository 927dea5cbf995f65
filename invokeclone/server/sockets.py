"""Events over socket.io: who is connected, which rooms they are in, and which rooms an event goes to.

It routes by an event class's audience and refuses to know any particular event, except that one without an owner goes to
whoever watches its queue. Payloads pass through untouched.
"""

import asyncio
import contextlib
from typing import Any

import orjson
import socketio

from invokeclone.kit import log
from invokeclone.kit.events import Bus, Event
from invokeclone.kit.settings import Settings
from invokeclone.users.current import SYSTEM

PATH = "/ws/socket.io"
ADMIN = "admin"
NAME_LIMIT = 200
ROOM_LIMIT = 50
BACKLOG_LIMIT = 1_000
"""Events waiting to be sent from which on those without lasting meaning (progress) are dropped."""

_log = log.get("server.sockets")


class _Json:
    """orjson with the call signature that socket.io expects of a JSON module."""

    @staticmethod
    def dumps(value: object, **_options: Any) -> str:
        return orjson.dumps(value).decode()

    @staticmethod
    def loads(text: str | bytes, **_options: Any) -> Any:
        return orjson.loads(text)


def user_room(user_id: str) -> str:
    """Return the room of everything that belongs to one user."""
    return f"user:{user_id}"


def queue_room(queue_id: str) -> str:
    """Return the room of those who watch a queue."""
    return f"queue:{queue_id}"


def bulk_room(bulk_download_id: str) -> str:
    """Return the room of those who wait for a zip file."""
    return f"bulk:{bulk_download_id}"


def rooms_for(  # noqa: PLR0911  (a table, a row per audience)
    kind: type[Event], payload: dict[str, Any]
) -> list[str] | None:
    """Return the rooms that get `payload` in full; None: every socket; an empty list: nobody."""
    owner = payload.get("user_id")
    match kind.audience:
        case "everyone":
            return None
        case "admin":
            return [ADMIN]
        case "owner":
            return [user_room(owner or SYSTEM.user_id)]
        case "owner_and_admin":
            return [user_room(owner or SYSTEM.user_id), ADMIN]
        case "queue":
            if "user_id" in payload and owner is None:
                return [queue_room(payload["queue_id"])]
            return [user_room(owner or SYSTEM.user_id), ADMIN]
        case "bulk_download":
            if owner and owner != SYSTEM.user_id:
                return [user_room(owner), ADMIN]
            return [bulk_room(payload["bulk_download_id"])]
        case _:
            return []


class Sockets:
    """The socket.io server. `listen` takes events from the bus; one task sends them, in their order."""

    def __init__(self, settings: Settings) -> None:
        """Make the server; browsers may connect from its own origin and from the allowed ones."""
        self._origins = frozenset(settings.allow_origins)
        self._server = socketio.AsyncServer(
            async_mode="asgi",
            json=_Json,
            http_compression=False,
            cors_allowed_origins=self._may_connect,
            max_http_buffer_size=100_000,
        )
        self._server.on("connect", self._connect)
        for name, field, room in (("queue", "queue_id", queue_room), ("bulk_download", "bulk_download_id", bulk_room)):
            self._server.on(f"subscribe_{name}", self._entering(field, room))
            self._server.on(f"unsubscribe_{name}", self._leaving(field, room))
        self.app = socketio.ASGIApp(self._server, socketio_path=PATH)
        self._waiting: asyncio.Queue[tuple[type[Event], dict[str, Any]]] = asyncio.Queue()
        self._sender: asyncio.Task[None] | None = None

    def listen(self, bus: Bus) -> None:
        """Forward what `bus` tells from now on."""
        bus.subscribe(self._queue_up)
        self._sender = asyncio.create_task(self._send_all(), name="socket events")

    async def close(self) -> None:
        """Stop forwarding and close every socket; a second call does nothing."""
        sender, self._sender = self._sender, None
        if sender is None:
            return
        sender.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sender
        for client in list(self._server.eio.sockets.values()):
            await client.close(wait=False)  # waiting would last as long as a client that is gone doesn't read
        await self._server.shutdown()

    def _queue_up(self, kind: type[Event], payload: dict[str, Any]) -> None:
        if self._waiting.qsize() > BACKLOG_LIMIT and kind.name.endswith("_progress"):
            return
        self._waiting.put_nowait((kind, payload))

    async def _send_all(self) -> None:
        while True:
            kind, payload = await self._waiting.get()
            try:
                await self._send(kind, payload)
            except Exception:  # noqa: BLE001  (the event forwarder outlives every event)
                _log.exception("could not send %s", kind.name)

    async def _send(self, kind: type[Event], payload: dict[str, Any]) -> None:
        rooms = rooms_for(kind, payload)
        if rooms is None:
            await self._server.emit(kind.name, payload)
        elif rooms:
            await self._server.emit(kind.name, payload, room=rooms)

    async def _connect(self, sid: str, _environ: dict[str, Any], _auth: object = None) -> None:
        """Put a new socket where its user's events go; in single-user mode everybody is `system`, an admin."""
        await self._server.enter_room(sid, user_room(SYSTEM.user_id))
        await self._server.enter_room(sid, ADMIN)

    def _entering(self, field: str, room: Any) -> Any:
        async def enter(sid: str, data: object = None) -> None:
            name = _name(data, field)
            if name and len(self._server.rooms(sid)) < ROOM_LIMIT:
                await self._server.enter_room(sid, room(name))

        return enter

    def _leaving(self, field: str, room: Any) -> Any:
        async def leave(sid: str, data: object = None) -> None:
            name = _name(data, field)
            if name:
                await self._server.leave_room(sid, room(name))

        return leave

    def _may_connect(self, origin: str | None, environ: dict[str, Any]) -> bool:
        """Tell whether a browser page from `origin` may listen: the server's own pages and allowed origins."""
        if origin is None or origin in self._origins or "*" in self._origins:
            return True
        host = origin.partition("://")[2]
        forwarded = environ.get("HTTP_X_FORWARDED_HOST", "").split(",")[0].strip()
        return host in (environ.get("HTTP_HOST"), forwarded)


def _name(data: object, field: str) -> str | None:
    name = data.get(field) if isinstance(data, dict) else None
    return name if isinstance(name, str) and 0 < len(name) <= NAME_LIMIT else None
