"""A joined worker, and what its server does with the messages of its connection."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy.exc import SQLAlchemyError
from starlette.websockets import WebSocket, WebSocketDisconnect

from invokeclone.kit import events as bus_events
from invokeclone.kit import log
from invokeclone.kit.config.settings import DEVICE
from invokeclone.server.joined.calls import WorkerCalls
from invokeclone.server.joined.link import JoinedLink
from invokeclone.server.joined.protocol import (
    MAX_REASON,
    MESSAGE_LIMIT,
    SILENCE_S,
    Assembler,
    EndedWorker,
    explain,
    one_line,
)
from invokeclone.server.supervision.supervisor import Supervisor
from invokeclone.server.supervision.workers import Worker
from invokeclone.users.worker_tokens import WorkerToken

MAX_OPEN_CALLS = 256
MAX_OPEN_BYTES = 2 * MESSAGE_LIMIT
"""Maximum number and size of the open calls of a worker: no message is read above them."""
MAX_RUNNING_CALLS = 8
"""Maximum number of calls of a worker that run, or whose results are sent, at the same time."""
MAX_REFUSED_MESSAGES = 100
REFUSALS_S = 60.0
"""Number of messages without a meaning within these seconds after which a connection is closed."""
EVENTS = frozenset(
    {"invocation_started", "invocation_progress", "invocation_complete", "invocation_error"}
    | {"model_load_started", "model_load_complete"}
)
"""Events that a joined worker may send; those of its own item are passed on. All others are emitted by its calls."""
ITEM_FIELDS = ("item_id", "queue_id", "batch_id", "session_id", "origin", "destination")
"""Fields of an event of a node that must be those of the worker's item."""

_log = log.get("server.joined")


@dataclass(eq=False)
class JoinedWorker:
    """A worker that is joined, or was until a moment ago."""

    worker: Worker
    calls: WorkerCalls
    token: WorkerToken
    is_admitted: Callable[["JoinedWorker"], Awaitable[bool]]
    """Returns whether its calls may be run."""
    link: JoinedLink | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    """Its open calls; `open_bytes` is the size of their messages."""
    open_bytes: int = 0
    running: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_RUNNING_CALLS))
    forgetting: asyncio.TimerHandle | None = None

    def start_call(self, size: int, number: int, oldest: int, method: str, arguments: dict[str, Any]) -> None:
        """Start a call, whose message has `size` bytes; its result is sent."""
        task = asyncio.create_task(self._run_call(number, oldest, method, arguments), name="joined worker open call")
        self.tasks.add(task)
        self.open_bytes += size

        def end(task: asyncio.Task[None]) -> None:
            self.tasks.discard(task)
            self.open_bytes -= size

        task.add_done_callback(end)

    async def _run_call(self, number: int, oldest: int, method: str, arguments: dict[str, Any]) -> None:
        async with self.running:
            # checked here, as a database that hangs must not keep messages from being read
            if not await self.is_admitted(self):
                return
            result = await self.calls.run(number, oldest, method, arguments)
            if self.link is not None:
                await self.link.deliver(result)


class Connection:
    """Reads and handles the messages of one connection of a joined worker."""

    def __init__(
        self,
        socket: WebSocket,
        joined: JoinedWorker,
        supervisor: Supervisor,
        *,
        on_ended: Callable[[EndedWorker], Awaitable[None]],
    ) -> None:
        """Report the end of the worker process to `on_ended`."""
        self._socket = socket
        self._joined = joined
        self._worker = joined.worker
        self._supervisor = supervisor
        self._on_ended = on_ended
        self._assembler = Assembler()
        self._refused = 0
        self._refused_since = 0.0
        self._invalid: set[str] = set()
        """Names of events that were not valid."""

    async def serve(self, link: JoinedLink) -> None:
        """Handle messages until the worker or `link` ends the connection, or sends what has no meaning."""
        reading = asyncio.create_task(self._read_all(), name="joined worker messages")
        ending = asyncio.create_task(link.ended.wait(), name="joined worker end")
        try:
            await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reading, ending):
                task.cancel()
            await asyncio.gather(reading, ending, return_exceptions=True)

    async def _read_all(self) -> None:
        try:
            while await self._handle_next():
                while len(self._joined.tasks) >= MAX_OPEN_CALLS or self._joined.open_bytes > MAX_OPEN_BYTES:
                    await asyncio.wait(self._joined.tasks, return_when=asyncio.FIRST_COMPLETED)
        except (WebSocketDisconnect, TimeoutError):
            pass
        except (SQLAlchemyError, OSError) as error:  # the agent joins again and repeats the message
            self._warn(f"is disconnected, as its message cannot be handled now: {error}")
        except Exception as error:  # noqa: BLE001  (of a worker that does not follow the protocol)
            self._warn(f"sent an invalid message: {type(error).__name__}: {str(error)[:MAX_REASON]}")

    def _warn(self, text: str) -> None:
        _log.warning("the worker for %s %s", self._worker.device, text, extra=self._worker.log_fields("read_message"))

    async def _handle_next(self) -> bool:
        """Read and handle a message; return whether the connection goes on."""
        frame = await asyncio.wait_for(self._socket.receive(), SILENCE_S)
        if frame["type"] != "websocket.receive":
            return False
        message = self._assembler.add(frame.get("text") or frame.get("bytes") or b"")
        return message is None or await self._handle(message)

    async def _handle(self, message: dict[str, Any]) -> bool:
        """Handle a message; return whether the connection goes on."""
        joined = self._joined
        match message:
            case {"kind": "call", "id": int(number), "method": str(method), "arguments": dict(arguments)}:
                oldest = message.get("oldest")
                oldest = oldest if isinstance(oldest, int) else 0
                joined.start_call(self._assembler.size, number, oldest, method, arguments)
            case {"kind": "alive"}:  # the process may hang nevertheless, which the supervisor notices
                if joined.link is not None:
                    joined.link.send(message)
            case {"kind": "ended"}:
                reason, stopped = one_line(message.get("reason")), message.get("stopped") is True
                await self._on_ended(EndedWorker(worker_id=self._worker.worker_id, reason=reason, stopped=stopped))
                return False
            case _:
                return self._pass_on(message)
        return True

    def _pass_on(self, message: dict[str, Any]) -> bool:
        """Handle a message as one of a worker of this machine, if it may send it; return whether the connection goes on."""
        match message:
            case {"kind": "event", "name": str(name), "data": dict(data)}:
                if name not in EVENTS:
                    return self._refuse(f"an event {name[:50]!r}, which is not a worker's")
                if (event := self._find_event(name, data)) is None:
                    return True
                message = {**message, "data": event}
            case {"kind": "ready"}:
                if not _is_device(message.get("device")):
                    return self._refuse("that it is ready for what is no device")
            case {"kind": "stopped"}:
                message = {**message, "reason": one_line(message.get("reason"))}
            case {"kind": "reply" | "heartbeat" | "stopping"}:
                pass
            case _:
                return self._refuse("an unknown message")
        self._supervisor.receive(self._worker, message)
        return True

    def _refuse(self, subject: str) -> bool:
        """Report a message that is not handled; return whether the connection goes on."""
        now = time.monotonic()
        if now - self._refused_since >= REFUSALS_S:
            self._refused, self._refused_since = 0, now
        self._refused += 1
        self._warn(f"sent {subject}")
        return self._refused < MAX_REFUSED_MESSAGES

    def _find_event(self, name: str, data: dict[str, Any]) -> dict[str, Any] | None:
        """Return the event to pass on, None if it is not valid, or not of the worker's item.

        A worker that returns still has events of an item that it has lost. Events are sent to the users that they name.
        """
        item = self._joined.calls.last_claim
        fields = ITEM_FIELDS if name.startswith("invocation_") else ()
        if item is None or any(data.get(field) != getattr(item, field) for field in ("user_id", *fields)):
            extra = self._worker.log_fields("read_message")
            _log.debug("an event %r of %s is of no item that it has", name, self._worker.device, extra=extra)
            return None
        if data.get("device") is not None:
            data["device"] = self._worker.device
        try:
            event = bus_events.EVENTS[name].model_validate(data).model_dump(mode="json")
            orjson.dumps(event)  # it reads deeper values than it writes
        except (ValueError, TypeError, RecursionError) as error:
            if name not in self._invalid:  # a node may send one at each step
                self._invalid.add(name)
                self._warn(f"sent an event {name!r} that is not valid: {explain(error)}")
            return None
        return event


def _is_device(value: object) -> bool:
    return isinstance(value, str) and DEVICE.fullmatch(value) is not None
