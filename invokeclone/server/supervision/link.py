"""One worker process and its pipes: start it, send it messages, hand on its messages, end it; it knows no message's meaning."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from invokeclone.kit import log
from invokeclone.kit.process.child_process import DRAIN_S, ChildProcess, read_lines

LINE_LIMIT = 64 * 1024 * 1024
UNREAD_LIMIT = 8 * 1024 * 1024
"""Bytes a worker may leave unread before it counts as gone."""

Message = dict[str, Any]
_log = log.get("server.link")


class WorkerLink:
    """A started worker process. Sending never blocks; messages from the worker go to `on_message`, in order.

    The worker gets its own session, so that Ctrl+C in the terminal reaches the server alone, which then ends it in order.
    """

    def __init__(self, child: ChildProcess, on_message: Callable[[Message], None]) -> None:
        self._child = child
        self._on_message = on_message
        reading = read_lines(child, self._handle, self._too_long)
        self._reader = asyncio.create_task(reading, name=f"worker {child.pid} lines")

    @classmethod
    async def start(
        cls, command: Sequence[str], on_message: Callable[[Message], None], environment: dict[str, str] | None = None
    ) -> "WorkerLink":
        """Start `command`; raises OSError when it cannot be."""
        return cls(await ChildProcess.start(command, line_limit=LINE_LIMIT, environment=environment), on_message)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    def send(self, message: Message) -> None:
        """Queue one message; without effect once the worker is gone or no longer reads."""
        if self._child.unread > UNREAD_LIMIT:
            _log.error("worker %s doesn't read its messages: ending it", self.pid)
            self.kill()
            return
        self._child.send(orjson.dumps(message) + b"\n")

    async def wait(self) -> int:
        """Wait until the process has ended and its last line is handled; return its exit status (-N: signal N).

        What it has started itself is ended too. A process that closes its pipe and lives can't be heard any more: it is ended.
        """
        ending = asyncio.ensure_future(self._child.wait())
        try:
            await asyncio.wait({ending, self._reader}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({ending}, timeout=DRAIN_S)
            if not ending.done():
                _log.error("worker %s closed its end of the link: ending it", self.pid)
                self.kill()
            status = await ending
            # A grandchild may hold the pipe open: what is still unread after a moment is not waited for.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._reader), DRAIN_S)
            return status
        finally:
            ending.cancel()
            self._reader.cancel()
            await self._child.close()

    async def end(self, grace_s: float) -> None:
        """Ask the worker to stop; after `patience` seconds send SIGTERM, after as many again SIGKILL.

        Whoever waits in `ended` closes the pipes.
        """
        self.send({"kind": "stop"})
        self._child.close_stdin()
        for name, act in (("SIGTERM", self._child.terminate), ("SIGKILL", self._child.kill)):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._child.wait(), grace_s)
                return
            _log.warning("worker %s doesn't stop: sending %s", self.pid, name)
            act()
        await self._child.wait()

    def kill(self) -> None:
        """End the process, and what it has started, at once."""
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
        except Exception:  # noqa: BLE001  (a message that makes no sense must not end the reading of those after it)
            _log.exception("worker %s sent a message that can't be understood: %s", self.pid, line[:500])
