"""The joined workers of a server: they join, lose the connection and return, and leave."""

import asyncio
import contextlib
import functools
import time
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from invokeclone.kit import log
from invokeclone.kit.process.periodic import PeriodicTask
from invokeclone.kit.resources import Resources
from invokeclone.queue import leases
from invokeclone.queue.bulk import JOINED
from invokeclone.queue.store import LEASE_S
from invokeclone.server.joined.calls import Dispatch, WorkerCalls, no_operations
from invokeclone.server.joined.link import JoinedLink
from invokeclone.server.joined.protocol import (
    REFUSED,
    SILENCE_S,
    Assembler,
    EndedWorker,
    Join,
    find_difference,
)
from invokeclone.server.supervision.supervisor import Supervisor
from invokeclone.server.supervision.workers import Worker
from invokeclone.users import worker_tokens
from invokeclone.users.joined import require_joined_worker
from invokeclone.users.worker_tokens import WorkerToken

JOIN_TIMEOUT_S = 10.0
TOKEN_CHECK_S = 30.0
MAX_OPEN_CALLS = 256
EVENTS = frozenset(
    {"invocation_started", "invocation_progress", "invocation_complete", "invocation_error"}
    | {"model_load_started", "model_load_complete"}
)
"""Events that a joined worker may send, of its own item; all others are emitted by its calls."""
MESSAGES = frozenset({"ready", "reply", "heartbeat", "stopping", "stopped"})
"""Messages that are handled as those of workers of this machine."""

_log = log.get("server.joined")


class Refused(Exception):
    """The worker may not join; `again` if it may try later without a change."""

    def __init__(self, reason: str, *, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


@dataclass(eq=False)
class _JoinedWorker:
    """A worker that is joined, or was until a moment ago."""

    worker: Worker
    calls: WorkerCalls
    token: WorkerToken
    link: JoinedLink | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    forgetting: asyncio.TimerHandle | None = None


class JoinedWorkers:
    """Accepts joined workers and adds them to the supervisor's."""

    def __init__(self, resources: Resources, supervisor: Supervisor, dispatch: Dispatch = no_operations) -> None:
        """Run operations other than the queue's with `dispatch`."""
        self._resources = resources
        self._supervisor = supervisor
        self._dispatch = dispatch
        self._joined: dict[str, _JoinedWorker] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, socket: WebSocket) -> None:
        """Handle the connection of an agent until it is closed."""
        await socket.accept()
        try:
            token = await require_joined_worker(socket)
            join = await _receive_join(socket)
            joined = await self._join(socket, join, token)
        except (Refused, worker_tokens.InvalidToken) as refusal:
            again = isinstance(refusal, Refused) and refusal.again
            _log.warning("a worker may not join: %s", refusal, extra={"action": "refuse_worker"})
            with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError):
                message = {"kind": "refused", "reason": str(refusal), "again": again}
                await socket.send_text(orjson.dumps(message).decode())
                await socket.close(REFUSED)
            return
        except WebSocketDisconnect:
            return
        link = joined.link
        assert link is not None
        check = functools.partial(self._check_token, joined, link)
        failure = "cannot check the token of a worker"
        checks = PeriodicTask("check_token", check, TOKEN_CHECK_S, failure=failure, logger=_log, at_once=False)
        checks.start()
        try:
            await self._read(socket, joined)
        finally:
            await checks.stop()
            await link.end(1.0)
            self._disconnect(joined, link)

    async def stop(self) -> None:
        """Stop pending work; the supervisor has closed the connections."""
        for joined in list(self._joined.values()):
            if joined.forgetting is not None:
                joined.forgetting.cancel()
            for task in joined.tasks:
                task.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _join(self, socket: WebSocket, join: Join, token: WorkerToken) -> _JoinedWorker:
        if (difference := find_difference(join.protocol, join.version)) is not None:
            raise Refused(difference)
        for ended in join.ended:
            await self._end(ended, join.name)
        device = f"{join.name}/{join.device}"
        joined = self._joined.get(join.worker_id)
        if joined is not None and joined.token.id != token.id:
            raise Refused("this worker has joined with another token; start it again")
        if joined is None:
            self._check_name(join, device)
            worker = Worker(device, worker_id=join.worker_id, name=join.name)
            calls = WorkerCalls(self._resources, self._supervisor, worker, self._dispatch)
            await calls.restore()
            joined = self._joined.setdefault(join.worker_id, _JoinedWorker(worker, calls, token))
            if joined.worker is worker:
                self._supervisor.add_joined(worker)
        await worker_tokens.note_use(self._resources.database, token)
        self._connect(socket, joined, join)
        return joined

    def _check_name(self, join: Join, device: str) -> None:
        """Refuse a second worker of the same name and device while the first is connected, as names are not checked."""
        for other in self._joined.values():
            if other.link is not None and other.worker.name == join.name and other.worker.device == device:
                raise Refused(f"a worker for {device} is joined already; give each machine its own --name", again=True)

    def _connect(self, socket: WebSocket, joined: _JoinedWorker, join: Join) -> None:
        if joined.forgetting is not None:
            joined.forgetting.cancel()
        if joined.link is not None:  # its end was not noticed yet
            joined.link.close()
            joined.worker.disconnect("the worker has joined again")
        worker, link = joined.worker, JoinedLink(socket, join.pid)
        joined.link = worker.link = link
        worker.messages_sent = join.received
        worker.last_message_at = time.monotonic()
        settings = self._supervisor.settings
        link.send(
            {
                "kind": "hello",
                "settings": settings.to_worker(),
                "packs": self._supervisor.packs,
                "worker_id": worker.worker_id,
                "max_frame": settings.limits.socket_message_kib * 1024,
            }
        )
        _log.info("the worker for %s has joined", worker.device, extra=worker.log_fields("join_worker"))
        self._start(leases.renew(self._resources, [worker.worker_id]), self._tasks)

    def _disconnect(self, joined: _JoinedWorker, link: JoinedLink) -> None:
        """Remember the worker for as long as its lease may last, unless it has joined again meanwhile."""
        if joined.link is not link:
            return
        worker = joined.worker
        joined.link = None
        if self._joined.get(worker.worker_id) is not joined:
            return
        worker.disconnect(f"the connection to the worker for {worker.device} is closed")
        _log.warning("the worker for %s is disconnected", worker.device, extra=worker.log_fields("leave_worker"))
        loop = asyncio.get_running_loop()
        joined.forgetting = loop.call_later(LEASE_S, self._forget, joined, "it did not join again")

    def _forget(self, joined: _JoinedWorker, reason: str) -> None:
        if self._joined.pop(joined.worker.worker_id, None) is not None:
            self._supervisor.remove_joined(joined.worker, reason)
        for task in joined.tasks:
            task.cancel()

    async def _end(self, ended: EndedWorker, name: str) -> None:
        """Interrupt the items of a worker process of machine `name` that its agent has seen end."""
        if not ended.worker_id.startswith(f"{JOINED}{name}:"):
            raise Refused("an agent reports the end of a worker of another machine")
        joined = self._joined.get(ended.worker_id)
        if joined is not None:
            _log.warning("%s: %s", joined.worker.device, ended.reason, extra=joined.worker.log_fields("end_worker"))
            self._forget(joined, ended.reason)
        reason = f"{ended.reason} ({name})"
        if await leases.interrupt(self._resources, ended.worker_id, reason, counted=not ended.stopped):
            self._supervisor.wake()

    async def _check_token(self, joined: _JoinedWorker, link: JoinedLink) -> None:
        """Close the connection when the token is revoked or has expired."""
        if joined.link is link and not await worker_tokens.is_valid(self._resources.database, joined.token):
            _log.warning("the token of the worker for %s is no longer valid", joined.worker.device)
            link.close(REFUSED)

    # Messages

    async def _read(self, socket: WebSocket, joined: _JoinedWorker) -> None:
        assembler = Assembler()
        while True:
            try:
                frame = await asyncio.wait_for(socket.receive_text(), SILENCE_S)
                message = assembler.add(frame)
            except (WebSocketDisconnect, TimeoutError, RuntimeError):
                return
            except (ValueError, KeyError) as error:
                extra = joined.worker.log_fields("read_message")
                _log.warning("the worker for %s sent an invalid message: %s", joined.worker.device, error, extra=extra)
                return
            if message is not None and not await self._handle(joined, message):
                return

    async def _handle(self, joined: _JoinedWorker, message: dict[str, Any]) -> bool:
        """Handle a message; return whether the connection goes on."""
        worker = joined.worker
        match message:
            case {"kind": "call", "id": int(number), "method": str(method), "arguments": dict(arguments)}:
                if len(joined.tasks) >= MAX_OPEN_CALLS:
                    _log.error("the worker for %s has too many open calls: disconnecting it", worker.device)
                    return False
                oldest = message.get("oldest")
                calling = self._call(joined, number, oldest if isinstance(oldest, int) else 0, method, arguments)
                self._start(calling, joined.tasks)
            case {"kind": "event", "name": str(name), "data": dict(data)}:
                if self._is_own_event(joined, name, data):
                    self._supervisor.receive(worker, message)
            case {"kind": "alive"}:  # the process may hang nevertheless, which the supervisor notices
                if joined.link is not None:
                    joined.link.send(message)
            case {"kind": "ended"}:
                await self._end_reported(joined, message)
                return False
            case {"kind": str(kind)} if kind in MESSAGES:
                try:
                    self._supervisor.receive(worker, message)
                except (TypeError, ValueError, KeyError, AttributeError):
                    extra = worker.log_fields("read_message")
                    _log.exception(
                        "the worker for %s sent a message that cannot be handled", worker.device, extra=extra
                    )
                    return False
            case _:
                extra = worker.log_fields("read_message")
                _log.warning("the worker for %s sent an unknown message", worker.device, extra=extra)
        return True

    async def _end_reported(self, joined: _JoinedWorker, message: dict[str, Any]) -> None:
        worker = joined.worker
        reason = str(message.get("reason"))[:500]
        ended = EndedWorker(worker_id=worker.worker_id, reason=reason, stopped=message.get("stopped") is True)
        await self._end(ended, str(worker.name))

    async def _call(
        self, joined: _JoinedWorker, number: int, oldest: int, method: str, arguments: dict[str, Any]
    ) -> None:
        result = await joined.calls.run(number, oldest, method, arguments)
        if joined.link is not None:
            joined.link.send(result)

    def _is_own_event(self, joined: _JoinedWorker, name: str, data: dict[str, Any]) -> bool:
        """Return whether the event is of the worker's item; events are sent to the users that their data names."""
        item, worker = joined.calls.last_claim, joined.worker
        is_own = item is not None and data.get("user_id") == item.user_id
        if is_own and item is not None and name.startswith("invocation_"):
            fields = ("item_id", "queue_id", "batch_id", "session_id", "origin", "destination")
            is_own = all(data.get(field) == getattr(item, field) for field in fields)
        if not is_own or name not in EVENTS:
            extra = worker.log_fields("read_message")
            _log.warning("the worker for %s sent an event %r of others", worker.device, name[:50], extra=extra)
            return False
        if data.get("device") is not None:
            data["device"] = worker.device
        return True

    def _start(self, work: Any, tasks: set[asyncio.Task[Any]]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def _receive_join(socket: WebSocket) -> Join:
    try:
        text = await asyncio.wait_for(socket.receive_text(), JOIN_TIMEOUT_S)
        message = orjson.loads(text)
        if isinstance(message, dict) and isinstance(message.get("protocol"), int):
            difference = find_difference(message["protocol"], str(message.get("version"))[:50])
            if difference is not None:  # before the fields, which another version may not have
                raise Refused(difference)
        return Join.model_validate(message)
    except TimeoutError as error:
        raise Refused("the worker sent no join message in time", again=True) from error
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise Refused(f"the join message is not valid: {problem['loc']}: {problem['msg']}") from error
    except (orjson.JSONDecodeError, KeyError, RuntimeError) as error:
        raise Refused("the join message is not valid: not a JSON text") from error
