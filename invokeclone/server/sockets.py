"""The socket.io server: connections, room membership, and delivery of events to rooms.

Events are routed by the audience of their class. In multi-user mode a queue's subscribers get redacted copies of events
about other users' items; the event classes create these copies.
"""

import asyncio
import contextlib
import logging
from typing import Any

import engineio
import orjson
import socketio
from socketio.exceptions import ConnectionRefusedError as Refused

from invokeclone.kit import log
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import TooLarge
from invokeclone.kit.events import Bus, Event
from invokeclone.kit.json_text import NotStorable, decode
from invokeclone.kit.process.periodic import PeriodicTask
from invokeclone.kit.sql.database import Database
from invokeclone.server.socket_sessions import AccessDecision, SocketSessions
from invokeclone.users.current import SYSTEM
from invokeclone.users.events import UserAccessChangedEvent

PATH = "/ws/socket.io"
ADMIN = "admin"
EVERYONE = "everyone"
"""The room of all admitted clients."""
NAME_LIMIT = 200
CHECK_S = 30.0
"""Seconds between checks whether connected users may stay connected."""
REFUSED_S = 1.0
"""Seconds that a refused client has to disconnect; official clients do so at once."""
BACKLOG_LIMIT = 1_000
"""Number of unsent events above which progress events are dropped."""

_log = log.get("server.sockets")


class _Engine(engineio.AsyncServer):  # type: ignore[misc]  # engineio has no types
    """The transport, with a time limit on disconnecting a client that does not read."""

    async def disconnect(self, sid: str | None = None) -> None:
        """Close one connection, or all.

        A client that sends an oversized or malformed POST is disconnected while that POST is handled, and does not read
        until then.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(super().disconnect(sid), REFUSED_S)
        if sid is not None:
            self.sockets.pop(sid, None)


class _Server(socketio.AsyncServer):  # type: ignore[misc]  # socketio has no types
    """The socket.io server on this transport."""

    def _engineio_server_class(self) -> type[engineio.AsyncServer]:
        return _Engine


class _ClientFaults(logging.Filter):
    """Downgrades the log message about an unreadable client payload to debug level, without a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg != "post request handler error":
            return True
        _log.debug("a client sent a payload that cannot be read: %s", record.exc_info and record.exc_info[1])
        return False


_FAULTS = _ClientFaults()


class _Json:
    """Strict JSON decoding behind the interface that socket.io expects of a JSON module."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    @staticmethod
    def dumps(value: object, **_options: Any) -> str:
        return orjson.dumps(value).decode()

    def loads(self, text: str | bytes, **_options: Any) -> Any:
        try:
            return decode(text.encode() if isinstance(text, str) else text, self._limits)
        except (NotStorable, TooLarge) as error:
            raise ValueError(str(error)) from error


def user_room(user_id: str) -> str:
    """Return the room for a user's own events."""
    return f"user:{user_id}"


def queue_room(queue_id: str) -> str:
    """Return the room of a queue's subscribers."""
    return f"queue:{queue_id}"


def bulk_room(bulk_download_id: str) -> str:
    """Return the room of the clients that wait for a zip file."""
    return f"bulk:{bulk_download_id}"


def rooms_for(  # noqa: PLR0911  (one return per audience)
    kind: type[Event], payload: dict[str, Any]
) -> list[str]:
    """Return the rooms that get the full `payload`; may be empty."""
    owner = payload.get("user_id")
    match kind.audience:
        case "everyone":
            return [EVERYONE]
        case "admin":
            return [ADMIN]
        case "owner":
            return [user_room(owner or SYSTEM.user_id)]
        case "owner_and_admin":
            return [user_room(owner or SYSTEM.user_id), ADMIN]
        case "workflow":
            public = payload.get("new_is_public", payload.get("is_public"))
            return [user_room(owner or SYSTEM.user_id), ADMIN, *([EVERYONE] if public else [])]
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
    """The socket.io server; a single task sends the events from the bus, in order."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """Create the server; `server/http/origins.py` decides which pages may connect.

        In multi-user mode users' accounts are read from `database`.
        """
        self._sessions = SocketSessions(database) if settings.multiuser else None
        self._limits = settings.limits
        self._server = _Server(
            async_mode="asgi",
            json=_Json(settings.limits),
            http_compression=False,
            cors_allowed_origins="*",  # server/http/origins.py has already checked the origin
            max_http_buffer_size=settings.limits.socket_message_kib * 1024,
        )
        self._server.eio.logger.addFilter(_FAULTS)
        self._server.on("connect", self._connect)
        self._server.on("disconnect", self._disconnect)
        for name, field, room in (("queue", "queue_id", queue_room), ("bulk_download", "bulk_download_id", bulk_room)):
            self._server.on(f"subscribe_{name}", self._subscriber(field, room))
            self._server.on(f"unsubscribe_{name}", self._unsubscriber(field, room))
        self.app = socketio.ASGIApp(self._server, socketio_path=PATH)
        self._event_queue: asyncio.Queue[tuple[type[Event], dict[str, Any]]] = asyncio.Queue()
        self._sender: asyncio.Task[None] | None = None
        self._checks = PeriodicTask(
            "check_sockets",
            self._check_all,
            CHECK_S,
            failure="could not check the connected users",
            logger=_log,
            at_once=False,
        )
        self._refused: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> int:
        """Number of connected clients."""
        return len(self._server.eio.sockets)

    def listen(self, bus: Bus) -> None:
        """Forward events from `bus` from now on."""
        bus.subscribe(self._enqueue)
        self._sender = asyncio.create_task(self._send_all(), name="socket events")
        if self._sessions is not None:
            self._checks.start()

    async def close(self) -> None:
        """Stop forwarding and close all sockets; a second call does nothing."""
        sender, self._sender = self._sender, None
        if sender is None:
            return
        await self._checks.stop()
        for task in (sender, *self._refused):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for client in list(self._server.eio.sockets.values()):
            await client.close(wait=False)  # waiting would block on a vanished client that no longer reads
        await self._server.shutdown()

    def _enqueue(self, kind: type[Event], payload: dict[str, Any]) -> None:
        if self._event_queue.qsize() > BACKLOG_LIMIT and kind.name.endswith("_progress"):
            return
        self._event_queue.put_nowait((kind, payload))

    async def _send_all(self) -> None:
        while True:
            kind, payload = await self._event_queue.get()
            try:
                await self._send(kind, payload)
            except Exception:  # noqa: BLE001  (a failing event must not stop the event task)
                _log.exception("could not send %s", kind.name)

    async def _send(self, kind: type[Event], payload: dict[str, Any]) -> None:
        if self._sessions is not None and kind is UserAccessChangedEvent:
            await self._check(self._sessions, payload["user_id"])
            return
        rooms = rooms_for(kind, payload)
        if not rooms:
            return
        if self._sessions is not None and kind.audience == "queue":
            await self._send_copies(kind, payload, rooms)
        else:
            await self._server.emit(kind.name, payload, room=rooms)

    async def _send_copies(self, kind: type[Event], payload: dict[str, Any], rooms: list[str]) -> None:
        """Send the full event to `rooms`, each owner's part to that owner, and the redacted copy to other subscribers.

        Every socket gets only one copy: the most detailed one that it may see.
        """
        event = kind.model_validate(payload)
        shares = event.shares()
        copies: list[tuple[list[str], dict[str, Any]]] = [([ADMIN] if shares else rooms, payload)]
        copies += [([user_room(user)], share.model_dump(mode="json")) for user, share in shares.items()]
        if (redacted := event.redact()) is not None:
            copies.append(([queue_room(payload["queue_id"])], redacted.model_dump(mode="json")))
        notified_sids: list[str] = []
        for target_rooms, copy in copies:
            sids = [sid for sid, _ in self._server.manager.get_participants("/", target_rooms)]
            await self._server.emit(kind.name, copy, room=target_rooms, skip_sid=notified_sids)
            notified_sids += sids

    async def _connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        """Add a new socket to its user's rooms; in single-user mode every client is the admin `system`."""
        user_id, is_admin = SYSTEM.user_id, True
        if len(self._server.eio.sockets) > self._limits.sockets:
            raise Refused(f"the limit of {self._limits.sockets} sockets is reached (setting limits.sockets)")
        if self._sessions is not None:
            sign_in = await self._sessions.admit(sid, environ, auth)
            if sign_in is None:
                task = asyncio.create_task(self._disconnect_refused(self._server.manager.eio_sid_from_sid(sid, "/")))
                self._refused.add(task)
                task.add_done_callback(self._refused.discard)
                raise Refused("Sign in first: the token is missing, invalid or no longer valid")
            user_id, is_admin = sign_in.user_id, sign_in.is_admin
        await self._server.enter_room(sid, EVERYONE)
        await self._server.enter_room(sid, user_room(user_id))
        if is_admin:
            await self._server.enter_room(sid, ADMIN)

    async def _disconnect_refused(self, transport: str) -> None:
        """Close the connection of a refused client that has not disconnected by itself."""
        await asyncio.sleep(REFUSED_S)
        await self._server.eio.disconnect(transport)

    async def _disconnect(self, sid: str, *_reason: object) -> None:
        if self._sessions is not None:
            self._sessions.forget(sid)

    async def _check_all(self) -> None:
        if self._sessions is not None:
            await self._check(self._sessions)

    async def _check(self, sessions: SocketSessions, user_id: str | None = None) -> None:
        """Disconnect users who have lost access, and update the admin room for the others."""
        for sid, decision in (await sessions.check(user_id)).items():
            try:
                await self._apply(sid, decision)
            except (KeyError, ValueError):  # it was closed in the meantime
                sessions.forget(sid)

    async def _apply(self, sid: str, decision: AccessDecision | None) -> None:
        if decision is None:
            return
        if not decision.may_stay:
            await self._server.disconnect(sid)
        elif decision.is_admin:
            await self._server.enter_room(sid, ADMIN)
        else:
            await self._server.leave_room(sid, ADMIN)

    def _subscriber(self, field: str, room: Any) -> Any:
        async def enter(sid: str, data: object = None) -> None:
            name = _name(data, field)
            if name and len(self._server.rooms(sid)) < self._limits.socket_rooms:
                await self._server.enter_room(sid, room(name))

        return enter

    def _unsubscriber(self, field: str, room: Any) -> Any:
        async def leave(sid: str, data: object = None) -> None:
            name = _name(data, field)
            if name:
                await self._server.leave_room(sid, room(name))

        return leave


def _name(data: object, field: str) -> str | None:
    name = data.get(field) if isinstance(data, dict) else None
    return name if isinstance(name, str) and 0 < len(name) <= NAME_LIMIT else None
