"""Calls of joined workers: each is run once, by the same functions that workers of this machine use.

A call that an agent sends again after a cut connection has the same number; it gets the result of the first run. Results
are kept until the agent's messages show that it has received them.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from invokeclone.kit import log
from invokeclone.kit.events import Event
from invokeclone.kit.resources import Resources
from invokeclone.queue import claims, leases
from invokeclone.queue.rows import ClaimedItem
from invokeclone.server.supervision.supervisor import Supervisor
from invokeclone.server.supervision.workers import Worker
from invokeclone.worker.calls import write_claimed_item

Arguments = dict[str, Any]
Dispatch = Callable[[Resources, str, str, Arguments], Awaitable[dict[str, Any]]]
"""Runs the other operations of a worker: called with resources, worker id, method and arguments; returns JSON."""

MAX_KEPT_RESULTS = 1000
MAX_ITEM_CHARACTERS = 12 * 1024 * 1024
"""Maximum length of an item's session and workflow; in a message each character may have several bytes."""
_log = log.get("server.joined")


class UnknownMethod(ValueError):
    """The server has no such method."""


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


def _too_large(device: str) -> tuple[str, str, str]:
    message = f"the item's graph and workflow are too large to be sent to {device}; run it on the server's machine"
    return "ItemTooLarge", message, message


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
        self._runs: dict[int, asyncio.Task[dict[str, Any]]] = {}
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

    async def run(self, number: int, oldest: int, method: str, arguments: Arguments) -> dict[str, Any]:
        """Return the `result` message of call `number`; no call before `oldest` will be sent again."""
        self._resources.settings, self._resources.maintenance = self._server.settings, self._server.maintenance
        for earlier in [run for run in self._runs if run < oldest]:
            del self._runs[earlier]
        while len(self._runs) > MAX_KEPT_RESULTS:
            del self._runs[next(iter(self._runs))]
        if number not in self._runs:
            self._runs[number] = asyncio.create_task(self._run(number, method, arguments), name=f"call {method}")
        return await asyncio.shield(self._runs[number])

    async def _run(self, number: int, method: str, arguments: Arguments) -> dict[str, Any]:
        try:
            match method:
                case "queue.claim":
                    value = await self._claim(_Claim.model_validate(arguments))
                case "queue.finish":
                    value = await self._finish(_Finish.model_validate(arguments))
                case "queue.is_running":
                    value = await self._is_running(_Held.model_validate(arguments))
                case _:
                    value = await self._dispatch(self._resources, self._worker.worker_id, method, arguments)
        except (UnknownMethod, ValidationError) as error:
            return {"kind": "result", "id": number, "error": str(error)}
        except Exception as error:  # noqa: BLE001  (the worker must get a result; it tries again)
            extra = self._worker.log_fields("run_call")
            _log.exception("call %s of the joined worker %s failed", method, self._worker.device, extra=extra)
            return {"kind": "result", "id": number, "error": f"the server failed: {type(error).__name__}"}
        return {"kind": "result", "id": number, "value": value}

    async def _claim(self, arguments: _Claim) -> dict[str, Any]:
        item = await self._claims.claim(arguments.resident)
        if item is None:
            return {"item": None}
        if len(item.session) + len(item.workflow or "") > MAX_ITEM_CHARACTERS:
            await claims.finish(
                self._resources, item.item_id, "failed", error=_too_large(self._worker.device), fence=item.fence
            )
            return {"item": None}
        self.last_claim = item
        return {"item": write_claimed_item(item)}

    async def _finish(self, arguments: _Finish) -> dict[str, Any]:
        self._claims.is_uncertain = False
        worker_id = self._worker.worker_id
        if not await leases.was_claimed_by(self._server.database, worker_id, arguments.item_id, arguments.fence):
            return {"finished": False}
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
        self._claims.is_uncertain = False  # it has received the claim
        try:
            await leases.get_held_item(
                self._server.database, self._worker.worker_id, arguments.item_id, arguments.fence
            )
        except leases.ItemNotHeld:
            return {"running": False}
        return {"running": True}
