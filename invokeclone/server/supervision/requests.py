"""Requests to workers, and their replies."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

from invokeclone.kit import log
from invokeclone.kit.errors import Unavailable
from invokeclone.server.supervision.link import Message
from invokeclone.server.supervision.workers import Worker

_log = log.get("server.supervisor")


class WorkerRequests:
    """Sends requests to workers."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        """Send to `workers`, which may change."""
        self._workers = workers
        self._numbers = itertools.count(1)

    async def ask_all(self, name: str, body: dict[str, Any] | None, seconds: float) -> list[Any]:
        """Return the replies of the workers that are ready, in the order of devices.

        A worker that is still loading handles the request later and is not waited for. One that fails or takes longer
        than `seconds` is left out; raises Unavailable if no ready worker replied.
        """
        asks = [answer for worker in self._workers if (answer := self._ask(worker, name, body)) is not None]
        answers = await asyncio.gather(*(asyncio.wait_for(ask, seconds) for ask in asks), return_exceptions=True)
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        for failure in failures:
            reason = str(failure) or type(failure).__name__
            _log.warning("a worker could not handle the request %s: %s", name, reason, extra={"action": "ask_worker"})
        if failures and len(failures) == len(answers):
            raise Unavailable(
                f"no worker could handle the request {name}: {str(failures[0]) or type(failures[0]).__name__}"
            )
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def ask_one(self, name: str, body: dict[str, Any], seconds: float) -> Any:
        """Return the reply of one worker of this machine, an idle one if possible.

        Raises Unavailable if none is ready, or if the worker ends or fails, and TimeoutError after `seconds`.
        """
        ready = [worker for worker in self._workers if worker.ready and worker.name is None]
        answer = self._ask(min(ready, key=lambda worker: worker.item_id is not None), name, body) if ready else None
        if answer is None:
            raise Unavailable(f"no worker is ready for the request {name}; try again in a moment")
        return await asyncio.wait_for(answer, seconds)

    def _ask(self, worker: Worker, name: str, body: dict[str, Any] | None) -> asyncio.Future[Any] | None:
        number = next(self._numbers)
        worker.send({"kind": "request", "id": number, "name": name, "body": body or {}})
        if not worker.ready:
            return None
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        worker.pending_requests[number] = future
        future.add_done_callback(lambda _future: worker.pending_requests.pop(number, None))
        return future


def receive_reply(worker: Worker, message: Message) -> None:
    """Give the reply of a worker to the request that waits for it."""
    future = worker.pending_requests.pop(int(message.get("id") or 0), None)
    if future is None or future.done():
        return
    if message.get("error") is not None:
        future.set_exception(Unavailable(str(message["error"])))
    else:
        future.set_result(message.get("body"))
