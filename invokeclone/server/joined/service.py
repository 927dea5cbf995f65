"""The joined workers of a server: they join, lose the connection and return, and leave."""

import asyncio
import contextlib
import functools
import time
from typing import Any

import orjson
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.websockets import WebSocket, WebSocketDisconnect

from invokeclone.kit import log
from invokeclone.kit.process.periodic import PeriodicTask
from invokeclone.kit.resources import Resources
from invokeclone.queue import leases
from invokeclone.queue.bulk import JOINED
from invokeclone.queue.store import LEASE_S
from invokeclone.server.joined.calls import Dispatch, WorkerCalls, no_operations
from invokeclone.server.joined.connection import Connection, JoinedWorker
from invokeclone.server.joined.link import CLOSE_S, GOING_AWAY, GONE, JoinedLink
from invokeclone.server.joined.protocol import REFUSED, EndedWorker, Join, explain, find_difference
from invokeclone.server.supervision.supervisor import Supervisor
from invokeclone.server.supervision.workers import Worker
from invokeclone.users import worker_tokens
from invokeclone.users.joined import require_joined_worker
from invokeclone.users.worker_tokens import WorkerToken

JOIN_TIMEOUT_S = 10.0
TOKEN_CHECK_S = 30.0
MAX_WORKERS = 1000
"""Maximum number of joined workers, with those that were until a moment ago."""

_log = log.get("server.joined")


class Refused(Exception):
    """The worker may not join; `again` if it may try later without a change."""

    def __init__(self, reason: str, *, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


class JoinedWorkers:
    """Accepts joined workers and adds them to the supervisor's."""

    def __init__(self, resources: Resources, supervisor: Supervisor, dispatch: Dispatch = no_operations) -> None:
        """Run operations other than the queue's with `dispatch`."""
        self._resources = resources
        self._supervisor = supervisor
        self._dispatch = dispatch
        self._joined: dict[str, JoinedWorker] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(self, socket: WebSocket) -> None:
        """Handle the connection of an agent until it is closed."""
        await socket.accept()
        try:
            token = await require_joined_worker(socket)
            join = await _receive_join(socket)
            joined = await self._join(socket, join, token)
        except (Refused, worker_tokens.InvalidToken) as refusal:
            await _refuse(socket, str(refusal), again=isinstance(refusal, Refused) and refusal.again)
            return
        except (SQLAlchemyError, OSError) as error:
            await _refuse(socket, f"the server cannot read its database now: {type(error).__name__}", again=True)
            return
        except WebSocketDisconnect:
            return
        link = joined.link
        assert link is not None
        check = functools.partial(self._check_token, joined, link)
        failure = "cannot check the token of a worker"
        checks = PeriodicTask("check_token", check, TOKEN_CHECK_S, failure=failure, logger=_log, at_once=False)
        checks.start()
        connection = Connection(
            socket,
            joined,
            self._supervisor,
            on_ended=lambda ended: self._end(ended, join.name, token),
        )
        try:
            await connection.serve(link)
        finally:
            await checks.stop()
            self._disconnect(joined, link)
            await link.end(CLOSE_S)

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

    async def _join(self, socket: WebSocket, join: Join, token: WorkerToken) -> JoinedWorker:
        if (difference := find_difference(join.protocol, join.version)) is not None:
            raise Refused(difference)
        for ended in join.ended:
            await self._end(ended, join.name, token)
        self._find(join, token)
        await worker_tokens.note_use(self._resources.database, token)
        joined = self._find(join, token)
        if joined is None:
            worker = Worker(f"{join.name}/{join.device}", worker_id=join.worker_id, name=join.name)
            calls = WorkerCalls(self._resources, self._supervisor, worker, self._dispatch)
            await calls.restore()
            joined = self._find(join, token)  # another may have joined meanwhile
            if joined is None:
                joined = JoinedWorker(worker, calls, token, self._is_admitted)
                self._joined[join.worker_id] = joined
                self._supervisor.add_joined(worker)
        self._connect(socket, joined, join)  # without an await since the checks
        return joined

    def _find(self, join: Join, token: WorkerToken) -> JoinedWorker | None:
        """Return the worker if it was joined until a moment ago, None if it is new; refuse one that may not join.

        A second worker of the same name and device is refused while the first is connected, as names are not checked.
        """
        joined = self._joined.get(join.worker_id)
        if joined is not None:
            if joined.token.id != token.id:
                raise Refused("this worker has joined with another token; start it again")
            return joined
        device = f"{join.name}/{join.device}"
        for other in self._joined.values():
            if other.link is not None and other.worker.name == join.name and other.worker.device == device:
                raise Refused(f"a worker for {device} is joined already; give each machine its own --name", again=True)
        if len(self._joined) >= MAX_WORKERS:
            raise Refused(f"{MAX_WORKERS} workers have joined already", again=True)
        return None

    def _connect(self, socket: WebSocket, joined: JoinedWorker, join: Join) -> None:
        if joined.forgetting is not None:
            joined.forgetting.cancel()
        if joined.link is not None:  # its end was not noticed yet
            joined.link.abort(GOING_AWAY)
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
        self._start(self._renew(worker.worker_id))

    def _disconnect(self, joined: JoinedWorker, link: JoinedLink) -> None:
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

    def _forget(self, joined: JoinedWorker, reason: str) -> None:
        if self._joined.pop(joined.worker.worker_id, None) is not None:
            self._supervisor.remove_joined(joined.worker, reason)
        for task in joined.tasks:
            task.cancel()

    async def _end(self, ended: EndedWorker, name: str, token: WorkerToken) -> None:
        """Interrupt the items of a worker process of machine `name` that its agent has seen end."""
        if not ended.worker_id.startswith(f"{JOINED}{name}:"):
            raise Refused("an agent reports the end of a worker of another machine")
        joined = self._joined.get(ended.worker_id)
        if joined is not None and joined.token.id != token.id:
            raise Refused("an agent reports the end of a worker that has joined with another token")
        if joined is not None:
            _log.warning("%s: %s", joined.worker.device, ended.reason, extra=joined.worker.log_fields("end_worker"))
            self._forget(joined, ended.reason)
        reason = f"{ended.reason} ({name})"
        if await leases.interrupt(self._resources, ended.worker_id, reason, counted=not ended.stopped):
            self._supervisor.hints.wake()

    async def _renew(self, worker_id: str) -> None:
        """Renew the lease of a worker that has returned, before the next round."""
        with contextlib.suppress(SQLAlchemyError, OSError):
            await leases.renew(self._resources, [worker_id])

    async def _check_token(self, joined: JoinedWorker, link: JoinedLink) -> None:
        """Cut the worker off when the token is revoked or has expired, also one that sends nothing."""
        if joined.link is link:
            await self._is_admitted(joined)

    async def _is_admitted(self, joined: JoinedWorker) -> bool:
        """Return whether the token of a worker is still valid; if not, the worker is cut off."""
        try:
            is_valid = await worker_tokens.is_valid(self._resources.database, joined.token)
        except (SQLAlchemyError, OSError):
            return True  # nothing can be done for the worker now, either
        if not is_valid:
            self._start(self._cut_off(joined))
        return is_valid

    async def _cut_off(self, joined: JoinedWorker) -> None:
        """End the connection of a worker whose token is no longer valid, and interrupt its items: it cannot return."""
        worker = joined.worker
        if self._joined.get(worker.worker_id) is not joined:
            return
        reason = f"the token of the worker for {worker.device} is no longer valid"
        _log.warning("%s: it is cut off", reason, extra=worker.log_fields("end_worker"))
        if joined.link is not None:
            joined.link.abort(REFUSED)
        self._forget(joined, reason)
        with contextlib.suppress(SQLAlchemyError, OSError):  # the lease ends without a renewal
            if await leases.interrupt(self._resources, worker.worker_id, reason, counted=False):
                self._supervisor.hints.wake()

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _refuse(socket: WebSocket, reason: str, *, again: bool) -> None:
    """Tell an agent that it may not join; `again` if it may try later without a change."""
    _log.warning("a worker may not join: %s", reason, extra={"action": "refuse_worker"})
    with contextlib.suppress(TimeoutError, *GONE):
        async with asyncio.timeout(CLOSE_S):
            await socket.send_text(orjson.dumps({"kind": "refused", "reason": reason, "again": again}).decode())
            await socket.close(REFUSED)


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
        raise Refused(f"the join message is not valid: {explain(error)}") from error
    except (orjson.JSONDecodeError, KeyError, RuntimeError) as error:
        raise Refused("the join message is not valid: not a JSON text") from error
