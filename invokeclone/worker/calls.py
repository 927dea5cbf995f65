"""Calls from a joined worker to its server: requests with a result, over the same link as all messages.

A call survives a cut connection: the process that holds the connection sends it again after it has joined again, and the
server runs each call once (`server/joined/calls.py`). A worker with access to the database makes no calls.
"""

import asyncio
import itertools
from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Any, NamedTuple

import orjson

from invokeclone.queue.rows import ClaimedItem
from invokeclone.worker.link import MAX_MESSAGE
from invokeclone.worker.loop import Outcome

CLAIM = "queue.claim"


class CallRefused(ValueError):
    """The server does not run a call, or cannot send its result, and would not if the call was repeated."""


class CallTooLarge(CallRefused):
    """The arguments of a call are too large for the link."""


class ServerCallFailed(ConnectionError):
    """The server could not run a call, for a reason that may be temporary; the loop tries again."""


class JoinedServer(NamedTuple):
    """Address of the server that a worker has joined, the worker's token and its id, for transfers of files."""

    url: str
    token: str
    worker_id: str


class ServerCalls:
    """Sends calls and returns their results. Call all methods on one event loop."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        """Send calls, encoded as JSON, with `send`."""
        self._send = send
        self._numbers = itertools.count(1)
        self._open: dict[int, tuple[str, asyncio.Future[dict[str, Any]]]] = {}

    async def call(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Run `method` on the server and return its result, however long the connection is cut meanwhile.

        Raises ServerCallFailed, a ConnectionError, and CallRefused.
        """
        number = next(self._numbers)
        line = orjson.dumps({"kind": "call", "id": number, "method": method, "arguments": arguments})
        if len(line) > MAX_MESSAGE:
            raise CallTooLarge(explain_size(f"the call {method}", len(line), "to the server"))
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._open[number] = method, future
        try:
            self._send(line)
            return await future
        finally:
            del self._open[number]

    def resolve(self, message: dict[str, Any]) -> None:
        """Handle a `result` message; the result of a canceled call is ignored."""
        _, future = self._open.get(int(message.get("id") or 0), (None, None))
        if future is None or future.done():
            return
        if message.get("error") is not None:
            kind = CallRefused if message.get("refused") else ServerCallFailed
            future.set_exception(kind(str(message["error"])))
        else:
            future.set_result(dict(message.get("value") or {}))

    def stop_claiming(self) -> None:
        """End open claims without an item, as the worker ends and the connection may be cut.

        The server returns an item that it claims meanwhile to the queue, when it learns that the worker has ended.
        """
        for method, future in self._open.values():
            if method == CLAIM and not future.done():
                future.set_result({})


class RemoteQueue:
    """The loop's queue of a joined worker: the server claims, renews and stores results on its behalf."""

    def __init__(self, calls: ServerCalls, resident: Callable[[], Collection[str]]) -> None:
        """Claim with the keys of cached models that `resident` returns."""
        self._calls = calls
        self._resident = resident

    async def claim(self) -> ClaimedItem | None:
        """Claim the next item."""
        result = await self._calls.call(CLAIM, {"resident": list(self._resident())})
        return ClaimedItem(**result["item"]) if result.get("item") else None

    async def finish(self, item: ClaimedItem, outcome: Outcome) -> bool:
        """Store session and status; return whether the item was still held by this claim."""
        result = await self._calls.call(
            "queue.finish",
            {
                "item_id": item.item_id,
                "fence": item.fence,
                "status": outcome.status,
                "session_json": outcome.session_json,
                "error": list(outcome.error) if outcome.error else None,
            },
        )
        return bool(result.get("finished"))

    async def is_running(self, item: ClaimedItem) -> bool:
        """Return whether the item's row is in progress, by this claim."""
        result = await self._calls.call("queue.is_running", {"item_id": item.item_id, "fence": item.fence})
        return bool(result.get("running"))


def explain_size(subject: str, size: int, receiver: str) -> str:
    """Return the message for a call or result that is over MAX_MESSAGE."""
    return (
        f"{subject} has {size / 1024**2:.1f} MiB of data, and at most {MAX_MESSAGE / 1024**2:.1f} MiB can be sent {receiver}: "
        "run this item on a worker of the server's machine"
    )


def write_claimed_item(item: ClaimedItem) -> dict[str, Any]:
    """Return an item for the result of `queue.claim`."""
    return asdict(item)
