"""The worker process of an agent: its messages, and what the server has not received of it."""

import time
from collections.abc import Hashable
from typing import Any

import orjson

from invokeclone.server.joined.send_queue import SendQueue
from invokeclone.server.supervision.link import Message, WorkerLink

CALL, PROGRESS, HEARTBEAT, READY = "call", "invocation_progress", "heartbeat", "ready"


class AgentProcess:
    """A worker process, before, during and after its run."""

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        self.link: WorkerLink | None = None
        self.ended: str | None = None
        """Why the process has ended."""
        self.started = time.monotonic()
        self.received = 0
        """Number of messages of the server that the process has got, without results."""
        self.queue = SendQueue()
        """Messages for the server. They stay while the connection is cut; those of an item end with it."""
        self._calls: dict[int, Message] = {}
        """Calls without a result."""
        self._ready: bytes | None = None

    @property
    def is_running(self) -> bool:
        """Whether it has started and not ended."""
        return self.link is not None and self.ended is None

    def send(self, message: Message) -> None:
        """Send a message to the process."""
        if self.link is None:
            return
        if message.get("kind") == "result":
            self._calls.pop(int(message.get("id") or 0), None)
        else:
            self.received += 1
        self.link.send(message)

    def receive(self, message: Message) -> None:
        """Queue a message of the process. Of progress and heartbeats the newest one is kept."""
        kind = message.get("kind")
        if kind == CALL:
            self._calls[int(message["id"])] = message
            self._add_call(message)
            return
        line = orjson.dumps(message)
        if kind == READY:
            self._ready = line
        self.queue.add(line, _key(message))

    def repeat(self) -> None:
        """Queue again what the server may not have received before the connection was cut."""
        if self._ready is not None:
            self.queue.add(self._ready, READY, at_front=True)
        for message in list(self._calls.values()):
            self._add_call(message)

    def end(self, reason: str, **fields: Any) -> None:
        """Queue the end of the process as its last message."""
        self.queue.add(orjson.dumps({"kind": "ended", "reason": reason, **fields}))
        self.queue.close()

    def _add_call(self, message: Message) -> None:
        line = orjson.dumps({**message, "oldest": min(self._calls)})
        self.queue.add(line, (CALL, message["id"]))


def _key(message: Message) -> Hashable | None:
    """Return the key of a message of which only the newest one matters."""
    kind = message.get("kind")
    if kind in (HEARTBEAT, READY):
        return str(kind)
    return PROGRESS if kind == "event" and message.get("name") == PROGRESS else None
