"""The link to the server: JSON lines over two pipes; it knows bytes, lines and threads, and no message's meaning.

The link is only a hint channel: what must not be lost is in the database. Sending never blocks the caller: lines are
queued, and one thread writes all that is waiting at once. When the server reads too slowly for long, progress is dropped
first (`droppable`), nothing else ever is.
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
"""Bytes waiting to be written from which on droppable lines are dropped."""

Message = dict[str, Any]
_log = log.get("worker.link")


class LineWriter:
    """Writes lines to a file descriptor from its own thread; `send` may be called from any thread and returns at once."""

    def __init__(self, descriptor: int) -> None:
        """Write to `descriptor` until closed; the descriptor stays the caller's."""
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
        """Queue one JSON document (without a line break); lost without a word once the other side is gone."""
        with self._changed:
            if self._broken or self._closing or (droppable and self._size > DROP_ABOVE):
                return
            self._waiting.append(line)
            self._size += len(line) + 1
            if not self._writing:
                self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until everything queued so far is written, `timeout` seconds at most; tell whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._broken or not (self._waiting or self._writing), timeout)

    def close(self, timeout: float) -> None:
        """Write what is queued, then end the thread; waits `timeout` seconds at most."""
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
    """Reads JSON lines from a file descriptor in its own thread and hands them on there."""

    def __init__(self, descriptor: int) -> None:
        """Read from `descriptor`; nothing is read before `first` or `start`."""
        self._file = os.fdopen(descriptor, "rb", closefd=False)

    def first(self) -> Message | None:
        """Read one message here and now (the hello); None: the other side closed."""
        line = self._file.readline()
        return orjson.loads(line) if line else None

    def start(self, on_message: Callable[[Message], None], on_end: Callable[[], None]) -> None:
        """Call `on_message` for each later message and `on_end` once at the end, both in the reading thread."""
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
    """What the rest of the worker says to the server: typed messages on top of a `LineWriter`.

    It is the `Emitter` of the worker's `Resources` too, so that every service called here tells its events to the server.
    """

    def __init__(self, writer: LineWriter) -> None:
        """Send over `writer`."""
        self._writer = writer
        self.received = 0
        """How many messages of the server have been dealt with; who counts them is whoever reads the link."""
        self.measure: Callable[[], Message] | None = None
        """Returns what heartbeats carry as `metrics`."""

    def ready(self, device: str, devices: list[dict[str, str]] | None) -> None:
        """Tell that items are claimed for `device`; `devices` are all there are, None while that isn't known."""
        self._send({"kind": "ready", "pid": os.getpid(), "device": device, "devices": devices})

    def heartbeat(self, item_id: int | None) -> None:
        """Tell that the event loop turns, and which item is being run."""
        message: Message = {"kind": "heartbeat", "item_id": item_id, "received": self.received}
        if self.measure is not None:
            try:
                message["metrics"] = self.measure()
            except Exception:  # noqa: BLE001  (a worker without heartbeats would be taken for a hung one)
                self.measure = None
                _log.exception("what this worker counts can't be measured: its heartbeats go on without metrics")
        self._send(message)

    def stopping(self, item_id: int) -> None:
        """Tell that the node of a canceled item has reached a checkpoint and is being left."""
        self._send({"kind": "stopping", "item_id": item_id})

    def reply(self, request_id: int, body: Any = None, error: str | None = None) -> None:
        """Answer request `request_id` with `body` or the text of an error."""
        self._send({"kind": "reply", "id": request_id, "body": body, "error": error})

    def report_stop(self, reason: str) -> None:
        """Tell that this process ends by itself, and why."""
        self._send({"kind": "stopped", "reason": reason})

    def emit(self, event: Event) -> None:
        """Pass on an event of any room."""
        self.event(event.name, event.model_dump_json().encode())

    def event(self, name: str, data: bytes, *, droppable: bool = False) -> None:
        """Pass on an event whose payload is JSON already."""
        self._writer.send(b'{"kind":"event","name":"%b","data":%b}' % (name.encode(), data), droppable=droppable)

    def _send(self, message: Message) -> None:
        self._writer.send(orjson.dumps(message))
