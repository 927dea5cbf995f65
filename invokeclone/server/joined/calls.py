"""Calls of joined workers: each is run once, by the same functions that workers of this machine use.

A call that an agent sends again after a cut connection has the same number; it gets the result of the first run. Results
are kept until the agent's messages show that it has received them.
"""

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from invokeclone.kit import log
from invokeclone.kit.events import Event
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources
from invokeclone.queue import claims, leases
from invokeclone.queue.rows import ClaimedItem
from invokeclone.server.joined.protocol import explain
from invokeclone.server.supervision.supervisor import Supervisor
from invokeclone.server.supervision.workers import Worker
from invokeclone.worker.calls import explain_size, write_claimed_item
from invokeclone.worker.link import MAX_MESSAGE
from invokeclone.worker.loop import TRANSIENT_ERRORS

Arguments = dict[str, Any]
Dispatch = Callable[[Resources, str, str, Arguments], Awaitable[dict[str, Any]]]
"""Runs the other operations of a worker: called with resources, worker id, method and arguments; returns JSON."""

MAX_KEPT_RESULTS = 1000
MAX_KEPT_BYTES = 2 * MAX_MESSAGE
"""Maximum number and size of the results that are kept for an agent that might not have received them."""
MESSAGE_MARGIN = 1000
"""Bytes of a message beside its value."""
MAX_ERROR_CHARACTERS = 2000
ERROR_LIMITS = (200, 100_000, 1_000_000)
"""Maximum characters of the type, the message and the traceback of an item's error; the rest is cut off."""
LONG_TEXT = 256 * 1024
_log = log.get("server.joined")


class UnknownMethod(ValueError):
    """The server has no such method."""


class InvalidSession(ValueError):
    """The session of an item is not what it must be."""


async def no_operations(_resources: Resources, _worker_id: str, method: str, _arguments: Arguments) -> dict[str, Any]:
    """Refuse all operations other than those of the queue."""
    raise UnknownMethod(f"unknown method {method[:100]!r}")


class _Claim(BaseModel):
    model_config = ConfigDict(extra="forbid")
    resident: list[str] = Field(default=[], max_length=10_000)


class _Held(BaseModel):
    model_config = ConfigDict(extra="forbid")
    item_id: int = Field(gt=0, lt=2**63)
    fence: int = Field(gt=0, lt=2**63)


class _Finish(_Held):
    status: str = Field(pattern="^(completed|failed|canceled)$")
    session_json: str | None = None
    error: tuple[str, str, str] | None = None

    @field_validator("error")
    @classmethod
    def _shorten(cls, error: tuple[str, str, str] | None) -> tuple[str, str, str] | None:
        if error is None:
            return None
        kind, message, trace = (text[:limit] for text, limit in zip(error, ERROR_LIMITS, strict=True))
        return kind, message, trace


async def _is_session(rest: str) -> bool:
    """Return whether the part of a session after its graph is JSON: a session that is not breaks lists of the queue."""

    def check() -> bool:
        try:
            return rest.startswith(",") and isinstance(json.loads('{"graph":null' + rest), dict)
        except (ValueError, RecursionError):
            return False

    return check() if len(rest) < LONG_TEXT else await in_thread(check)


class _Relay:
    """Emits the events of calls as events of the worker, as a worker of this machine would."""

    def __init__(self, supervisor: Supervisor, worker: Worker) -> None:
        self._supervisor = supervisor
        self._worker = worker

    def emit(self, event: Event) -> None:
        self._supervisor.relay(self._worker, event.name, event.model_dump(mode="json"))


class WorkerCalls:
    """Runs the calls of one joined worker."""

    def __init__(self, resources: Resources, supervisor: Supervisor, worker: Worker, dispatch: Dispatch) -> None:
        """Run calls for `worker`; `dispatch` runs those that are not of the queue."""
        self._server = resources
        self._resources = dataclasses.replace(resources, events=_Relay(supervisor, worker))
        self._worker = worker
        self._dispatch = dispatch
        self._runs: dict[int, asyncio.Task[bytes]] = {}
        self._claiming = asyncio.Lock()
        self._claims = claims.WorkerClaims(self._resources, worker.device, worker.worker_id)
        self.last_claim: ClaimedItem | None = None
        """The item that the worker runs, or ran last."""

    async def restore(self) -> None:
        """Read which item the worker holds, after the server was restarted."""
        item = await leases.get_held_claim(self._server, self._worker.worker_id)
        if item is not None:
            self.last_claim = item
            self._claims.is_uncertain = True
            self._worker.item_id, self._worker.queue_id, self._worker.user_id = (
                item.item_id, item.queue_id, item.user_id,
            )  # fmt: skip

    async def run(self, number: int, oldest: int, method: str, arguments: Arguments) -> bytes:
        """Return the `result` message of call `number` as JSON; no call before `oldest` will be sent again."""
        self._resources.settings, self._resources.maintenance = self._server.settings, self._server.maintenance
        self._forget_before(oldest)
        if number not in self._runs:
            self._runs[number] = asyncio.create_task(self._run(number, method, arguments), name="joined worker call")
        return await asyncio.shield(self._runs[number])

    def _forget_before(self, oldest: int) -> None:
        """Forget the results that the agent has, and the first of the others if they are too many."""
        for earlier in [run for run in self._runs if run < oldest]:
            del self._runs[earlier]
        size = sum(map(_result_size, self._runs.values()))
        while self._runs and (len(self._runs) > MAX_KEPT_RESULTS or size > MAX_KEPT_BYTES):
            size -= _result_size(self._runs.pop(next(iter(self._runs))))

    async def _run(self, number: int, method: str, arguments: Arguments) -> bytes:
        """Run a call once. The worker repeats one that fails, unless it is `refused`."""
        try:
            value = await self._find_value(method, arguments)
            result = orjson.dumps({"kind": "result", "id": number, "value": value})
        except ValidationError as error:
            return _refuse(number, f"the arguments of {method[:100]} are not valid: {explain(error)}")
        except (UnknownMethod, InvalidSession) as error:
            return _refuse(number, str(error))
        except Exception as error:  # noqa: BLE001  (the worker must get a result)
            extra = self._worker.log_fields("run_call")
            _log.exception("call %s of the joined worker %s failed", method[:100], self._worker.device, extra=extra)
            text = f"the server failed to run {method[:100]}: {type(error).__name__}"
            return _refuse(number, text, refused=not isinstance(error, TRANSIENT_ERRORS))
        if len(result) > MAX_MESSAGE:
            return _refuse(number, explain_size(f"the result of {method}", len(result), f"to {self._worker.device}"))
        return result

    async def _find_value(self, method: str, arguments: Arguments) -> dict[str, Any]:
        match method:
            case "queue.claim":
                return await self._claim(_Claim.model_validate(arguments))
            case "queue.finish":
                return await self._finish(_Finish.model_validate(arguments))
            case "queue.is_running":
                return await self._is_running(_Held.model_validate(arguments))
            case _:
                return await self._dispatch(self._resources, self._worker.worker_id, method, arguments)

    async def _claim(self, arguments: _Claim) -> dict[str, Any]:
        async with self._claiming:
            await self._interrupt_unfinished()
            item = await self._claims.claim(arguments.resident)
            if item is None:
                return {"item": None}
            self._claims.is_uncertain = True  # until its result exists: an error here leaves the item with the worker
            result = await self._give(item)
            self._claims.is_uncertain = False
            return result

    async def _interrupt_unfinished(self) -> None:
        """Return an item to the queue that the worker got, and did not end before it claims another one."""
        worker, last = self._worker, self.last_claim
        if self._claims.is_uncertain or last is None or not await self._holds(last.item_id, last.fence):
            return
        await leases.interrupt(self._resources, worker.worker_id, f"{worker.device} has claimed another item meanwhile")

    async def _give(self, item: ClaimedItem) -> dict[str, Any]:
        """Return the result of a claim. An item that is too large for it fails."""
        claimed = {"item": write_claimed_item(item)}
        if (size := len(orjson.dumps(claimed))) > MAX_MESSAGE - MESSAGE_MARGIN:
            text = explain_size("the graph and workflow of the item", size, f"to {self._worker.device}")
            error = ("ItemTooLarge", text, text)
            await claims.finish(self._resources, item.item_id, "failed", error=error, fence=item.fence)
            return {"item": None}
        self.last_claim = item
        return claimed

    async def _finish(self, arguments: _Finish) -> dict[str, Any]:
        worker_id = self._worker.worker_id
        if not await leases.was_claimed_by(self._server.database, worker_id, arguments.item_id, arguments.fence):
            return {"finished": False}
        if arguments.session_json is not None and not await _is_session(arguments.session_json):
            raise InvalidSession("the session of a finished item is not JSON")
        finished = await claims.finish(
            self._resources,
            arguments.item_id,
            arguments.status,  # type: ignore[arg-type]  # one of the pattern
            session_json=arguments.session_json,
            error=arguments.error,
            fence=arguments.fence,
        )
        return {"finished": finished is not None}

    async def _is_running(self, arguments: _Held) -> dict[str, Any]:
        return {"running": await self._holds(arguments.item_id, arguments.fence)}

    async def _holds(self, item_id: int, fence: int) -> bool:
        try:
            await leases.get_held_item(self._server.database, self._worker.worker_id, item_id, fence)
        except leases.ItemNotHeld:
            return False
        return True


def _result_size(run: asyncio.Task[bytes]) -> int:
    return len(run.result()) if run.done() and not run.cancelled() else 0


def _refuse(number: int, text: str, *, refused: bool = True) -> bytes:
    """Return the result of a call that has failed; the worker does not repeat one that is `refused`."""
    return orjson.dumps({"kind": "result", "id": number, "error": text[:MAX_ERROR_CHARACTERS], "refused": refused})
