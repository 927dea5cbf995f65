"""The connection to a worker: a process and its pipes, or (`server/joined`) a websocket of another machine."""

import asyncio
import collections
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import orjson

from invokeclone.kit import log
from invokeclone.kit.process.child_process import DRAIN_S, ChildProcess, read_lines

LINE_LIMIT = 64 * 1024 * 1024
UNREAD_LIMIT = 32 * 1024 * 1024
"""Bytes in the `Backlog` of a worker above which it counts as hung."""

Message = dict[str, Any]
_log = log.get("server.link")


class Backlog:
    """The size of the messages that wait until a worker has read earlier ones.

    It has neither the message in transit, which may be large, nor results, which the worker has requested by its calls.
    """

    def __init__(self) -> None:
        self._unread: collections.deque[tuple[int, int]] = collections.deque()
        """Sizes of the unread messages, and what of it counts."""
        self._total = 0
        self._counted = 0

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self._counted - self._unread[0][1] if self._unread else 0

    def add(self, size: int, *, is_result: bool) -> None:
        """Add a message that was sent."""
        self._unread.append((size, 0 if is_result else size))
        self._total += size
        self._counted += self._unread[-1][1]

    def trim(self, unread: int) -> None:
        """Remove the messages that the worker has read, as only `unread` bytes are left."""
        while self._unread and self._total - self._unread[0][0] >= unread:
            size, counted = self._unread.popleft()
            self._total -= size
            self._counted -= counted


class Link(Protocol):
    """The connection to a running worker."""

    @property
    def pid(self) -> int:
        """The process id, on the worker's machine."""
        ...

    def send(self, message: Message) -> None:
        """Queue a message; does nothing if the worker is gone. Never blocks."""
        ...

    async def end(self, grace_s: float) -> None:
        """Stop a worker of this machine; disconnect from one of another machine, which joins again."""
        ...

    def kill(self) -> None:
        """Kill the process of the worker, which is replaced."""
        ...


class WorkerLink:
    """A started worker process. Sending never blocks; messages from the worker go to `on_message`, in order.

    The worker gets its own session, so that Ctrl+C in the terminal reaches only the server, which then stops it
    cleanly.
    """

    def __init__(self, child: ChildProcess, on_message: Callable[[Message], None]) -> None:
        self._child = child
        self._on_message = on_message
        self._backlog = Backlog()
        reading = read_lines(child, self._handle, self._too_long)
        self._reader = asyncio.create_task(reading, name=f"worker {child.pid} lines")

    @classmethod
    async def start(
        cls, command: Sequence[str], on_message: Callable[[Message], None], environment: dict[str, str] | None = None
    ) -> "WorkerLink":
        """Start `command`; raises OSError if that fails."""
        return cls(await ChildProcess.start(command, line_limit=LINE_LIMIT, environment=environment), on_message)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    def send(self, message: Message) -> None:
        """Queue a message; does nothing if the process has ended. A worker that no longer reads is killed."""
        self._backlog.trim(self._child.unread)
        if self._backlog.size > UNREAD_LIMIT:
            _log.error("worker %s does not read its messages: killing it", self.pid)
            self.kill()
            return
        line = orjson.dumps(message) + b"\n"
        self._backlog.add(len(line), is_result=message.get("kind") == "result")
        self._child.send(line)

    async def wait(self) -> int:
        """Wait until the process has ended and its last line is handled; return its exit status (-N: signal N).

        Its child processes are killed too, and so is a process that closes its pipe but does not exit.
        """
        ending = asyncio.ensure_future(self._child.wait())
        try:
            await asyncio.wait({ending, self._reader}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({ending}, timeout=DRAIN_S)
            if not ending.done():
                _log.error("worker %s closed its pipe: killing it", self.pid)
                self.kill()
            status = await ending
            # A grandchild may hold the pipe open, so the wait for unread output is limited.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._reader), DRAIN_S)
            return status
        finally:
            ending.cancel()
            self._reader.cancel()
            await self._child.close()

    async def end(self, grace_s: float) -> None:
        """Ask the worker to stop; after `grace_s` seconds send SIGTERM, after as many again SIGKILL.

        The pipes are closed by the caller of `wait`.
        """
        self.send({"kind": "stop"})
        self._child.close_stdin()
        for name, act in (("SIGTERM", self._child.terminate), ("SIGKILL", self._child.kill)):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._child.wait(), grace_s)
                return
            _log.warning("worker %s does not stop: sending %s", self.pid, name)
            act()
        await self._child.wait()

    def kill(self) -> None:
        """Kill the process and its child processes."""
        self._child.kill()

    def _too_long(self) -> None:
        _log.error("worker %s sent a line over %d MiB: dropped", self.pid, LINE_LIMIT // 1024**2)

    def _handle(self, line: bytes) -> None:
        try:
            message = orjson.loads(line)
        except orjson.JSONDecodeError:
            _log.info("worker %s: %s", self.pid, line[:500].decode("utf-8", "replace").rstrip())
            return
        if not isinstance(message, dict):
            return
        try:
            self._on_message(message)
        except Exception:  # noqa: BLE001  (a malformed message must not stop the reader)
            _log.exception("worker %s sent a message that cannot be handled: %s", self.pid, line[:500])
