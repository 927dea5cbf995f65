"""Events over socket.io: who is connected, which rooms they are in, and which rooms an event goes to.

It routes by an event class's audience and refuses to know any particular event, except that one without an owner goes to
whoever watches its queue. Payloads pass through untouched; in multi-user mode, whoever watches a queue hears of others' items
by the copies that the events make for them.
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
from invokeclone.kit.sql.database import Database
from invokeclone.server.socket_sessions import AccessDecision, SocketSessions
from invokeclone.users.current import SYSTEM
from invokeclone.users.events import UserAccessChangedEvent

PATH = "/ws/socket.io"
ADMIN = "admin"
EVERYONE = "everyone"
"""The room of all who were let in."""
NAME_LIMIT = 200
CHECK_S = 30.0
"""How often it is looked whether those who listen still may."""
REFUSED_S = 1.0
"""How long one who was refused may take to leave; official clients do at once."""
BACKLOG_LIMIT = 1_000
"""Events waiting to be sent from which on those without lasting meaning (progress) are dropped."""

_log = log.get("server.sockets")


class _Engine(engineio.AsyncServer):  # type: ignore[misc]  # engineio has no types
    """The transport; it does not wait for ever for a client to read what is left for it."""

    async def disconnect(self, sid: str | None = None) -> None:
        """Close a connection, or all of them.

        Who sends too much in a POST, or what is no packet, is disconnected within that POST, and need not read before it is answered.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(super().disconnect(sid), REFUSED_S)
        if sid is not None:
            self.sockets.pop(sid, None)


class _Server(socketio.AsyncServer):  # type: ignore[misc]  # likewise
    """socket.io over that transport."""

    def _engineio_server_class(self) -> type[engineio.AsyncServer]:
        return _Engine


class _ClientFaults(logging.Filter):
    """Says at level debug, without a traceback, that a client sent what cannot be read."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg != "post request handler error":
            return True
        _log.debug("a client sent a payload that cannot be read: %s", record.exc_info and record.exc_info[1])
        return False


_FAULTS = _ClientFaults()


class _Json:
    """JSON by the one rule for clients, with the call signature that socket.io expects of a JSON module."""

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
) -> list[str]:
    """Return the rooms that get `payload` in full; an empty list: nobody."""
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
    """The socket.io server. `listen` takes events from the bus; one task sends them, in their order."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """Make the server; `server/http/origins.py` decides which pages may connect.

        In multi-user mode the accounts of those who connect are read from `database`.
        """
        self._sessions = SocketSessions(database) if settings.multiuser else None
        self._limits = settings.limits
        self._server = _Server(
            async_mode="asgi",
            json=_Json(settings.limits),
            http_compression=False,
            cors_allowed_origins="*",  # server/http/origins.py has let the page pass
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
        self._tasks: list[asyncio.Task[None]] = []
        self._refused: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> int:
        """How many clients are connected."""
        return len(self._server.eio.sockets)

    def listen(self, bus: Bus) -> None:
        """Forward what `bus` tells from now on."""
        bus.subscribe(self._enqueue)
        self._tasks.append(asyncio.create_task(self._send_all(), name="socket events"))
        if self._sessions is not None:
            self._tasks.append(asyncio.create_task(self._check_all(self._sessions), name="socket checks"))

    async def close(self) -> None:
        """Stop forwarding and close every socket; a second call does nothing."""
        tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        for task in (*tasks, *self._refused):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for client in list(self._server.eio.sockets.values()):
            await client.close(wait=False)  # waiting would last as long as a client that is gone doesn't read
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
            except Exception:  # noqa: BLE001  (the event forwarder outlives every event)
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
        """Send an event in full to `rooms`, to each of several owners their share, and to who else watches the rest of it.

        Every socket hears it once, the most that it may.
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
        """Put a new socket where its user's events go; in single-user mode everybody is `system`, an admin."""
        user_id, is_admin = SYSTEM.user_id, True
        if len(self._server.eio.sockets) > self._limits.sockets:
            raise Refused(f"there are {self._limits.sockets} sockets already (setting limits.sockets)")
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
        """Close the connection of one who was refused and hasn't gone: nobody without a token keeps one open."""
        await asyncio.sleep(REFUSED_S)
        await self._server.eio.disconnect(transport)

    async def _disconnect(self, sid: str, *_reason: object) -> None:
        if self._sessions is not None:
            self._sessions.forget(sid)

    async def _check_all(self, sessions: SocketSessions) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            try:
                await self._check(sessions)
            except Exception:  # noqa: BLE001  (the next check comes whatever happened to this one)
                _log.exception("could not check who listens")

    async def _check(self, sessions: SocketSessions, user_id: str | None = None) -> None:
        """Close the sockets of those who may no longer listen, and put the others where admins are, or not."""
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
