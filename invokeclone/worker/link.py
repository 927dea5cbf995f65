"""The link to the server: JSON lines over two pipes.

Messages only notify the server; everything that must not be lost is in the database. Sending never blocks the caller:
lines are queued, and one thread writes all queued lines at once. If the server reads too slowly, only `droppable` lines
(progress) are dropped.
"""

import collections
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from invokeclone.kit import log
from invokeclone.kit.events import Event

DROP_ABOVE = 32 * 1024 * 1024
"""Queued bytes above which droppable lines are dropped."""

MAX_MESSAGE = 60 * 1024 * 1024
"""Maximum bytes of a message between a worker and the server, below the limits of the pipe and of a websocket."""

Message = dict[str, Any]
_log = log.get("worker.link")


class LineWriter:
    """Writes lines to a file descriptor in its own thread; `send` is thread-safe and does not block."""

    def __init__(self, descriptor: int) -> None:
        """Write to `descriptor`, which the caller keeps and closes."""
        self._descriptor = descriptor
        self._waiting: collections.deque[bytes] = collections.deque()
        self._size = 0
        self._closing = False
        self._broken = False
        self._writing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write_all, name="link-writer", daemon=True)
        self._thread.start()

    def send(self, line: bytes, *, droppable: bool = False) -> None:
        """Queue one JSON document (without a line break); silently discarded after the other side has closed."""
        with self._changed:
            if self._broken or self._closing or (droppable and self._size > DROP_ABOVE):
                return
            self._waiting.append(line)
            self._size += len(line) + 1
            if not self._writing:
                self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until all queued lines are written; return whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: self._broken or not (self._waiting or self._writing), timeout)

    def close(self, timeout: float) -> None:
        """Write the queued lines and end the thread; waits up to `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                batch = b"\n".join(self._waiting) + b"\n"
                self._waiting.clear()
                self._size = 0
                self._writing = True
            if not self._write(batch):
                return

    def _write(self, batch: bytes) -> bool:
        rest = memoryview(batch)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except OSError:
                with self._changed:
                    self._broken = True
                    self._waiting.clear()
                    self._writing = False
                    self._changed.notify_all()
                return False
        return True


class LineReader:
    """Reads JSON lines from a file descriptor in its own thread."""

    def __init__(self, descriptor: int) -> None:
        """Prepare to read from `descriptor`; reading begins with `first` or `start`."""
        self._file = os.fdopen(descriptor, "rb", closefd=False)

    def first(self) -> Message | None:
        """Read one message (the hello) in the calling thread; None if the other side has closed."""
        line = self._file.readline()
        return orjson.loads(line) if line else None

    def start(self, on_message: Callable[[Message], None], on_end: Callable[[], None]) -> None:
        """Call `on_message` for each further message and `on_end` once at the end, both in the reader thread."""
        threading.Thread(target=self._read_all, args=(on_message, on_end), name="link-reader", daemon=True).start()

    def _read_all(self, on_message: Callable[[Message], None], on_end: Callable[[], None]) -> None:
        for line in self._lines():
            try:
                message = orjson.loads(line)
            except orjson.JSONDecodeError:
                _log.warning("the server sent a line that is not JSON: %r", line[:200])
                continue
            on_message(message)
        on_end()

    def _lines(self) -> Iterator[bytes]:
        while True:
            try:
                line = self._file.readline()
            except OSError:
                return
            if not line:
                return
            yield line


class ServerLink:
    """Typed messages to the server, sent through a `LineWriter`.

    Also the `Emitter` of the worker's `Resources`, so that the events of all services are sent to the server.
    """

    def __init__(self, writer: LineWriter) -> None:
        """Send through `writer`."""
        self._writer = writer
        self.received = 0
        """Number of messages from the server that have been handled, counted by the handler."""
        self.measure: Callable[[], Message] | None = None
        """Returns the `metrics` of a heartbeat."""

    def ready(self, device: str, devices: list[dict[str, str]] | None) -> None:
        """Report that items are claimed for `device`; `devices` are all available ones, None while unknown."""
        self._send({"kind": "ready", "pid": os.getpid(), "device": device, "devices": devices})

    def heartbeat(self, item_id: int | None) -> None:
        """Report that the event loop is responsive, and the running item."""
        message: Message = {"kind": "heartbeat", "item_id": item_id, "received": self.received}
        if self.measure is not None:
            try:
                message["metrics"] = self.measure()
            except Exception:  # noqa: BLE001  (without heartbeats the worker would be considered hung)
                self.measure = None
                _log.exception("the metrics of this worker cannot be read; heartbeats continue without metrics")
        self._send(message)

    def stopping(self, item_id: int) -> None:
        """Report that the node of a canceled item has reached a checkpoint and is stopping."""
        self._send({"kind": "stopping", "item_id": item_id})

    def reply(self, request_id: int, body: Any = None, error: str | None = None) -> None:
        """Reply to request `request_id` with `body` or an error message."""
        line = orjson.dumps({"kind": "reply", "id": request_id, "body": body, "error": error})
        if len(line) > MAX_MESSAGE:
            text = f"the reply has {len(line) // 1024**2} MiB, and at most {MAX_MESSAGE // 1024**2} MiB can be sent"
            line = orjson.dumps({"kind": "reply", "id": request_id, "body": None, "error": text})
        self._writer.send(line)

    def call(self, line: bytes) -> None:
        """Send an encoded call to the server, whose result is a message."""
        self._writer.send(line)

    def report_stop(self, reason: str) -> None:
        """Report that this process ends by itself, and why."""
        self._send({"kind": "stopped", "reason": reason})

    def emit(self, event: Event) -> None:
        """Send an event to the server."""
        self.event(event.name, event.model_dump_json().encode())

    def event(self, name: str, data: bytes, *, droppable: bool = False) -> None:
        """Send an event whose payload is already encoded as JSON. One that is too large is left out."""
        if len(data) > MAX_MESSAGE:
            size, limit = len(data) // 1024**2, MAX_MESSAGE // 1024**2
            _log.warning("the event %s has %d MiB, and at most %d MiB can be sent: it is left out", name, size, limit)
            return
        self._writer.send(b'{"kind":"event","name":"%b","data":%b}' % (name.encode(), data), droppable=droppable)

    def _send(self, message: Message) -> None:
        self._writer.send(orjson.dumps(message))
