"""One worker process and its pipes: start it, send it lines, read its lines, end it; it knows no message's meaning."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from invokeclone.kit import log

LINE_LIMIT = 64 * 1024 * 1024
UNREAD_LIMIT = 8 * 1024 * 1024
"""Bytes a worker may leave unread before it counts as gone."""

Message = dict[str, Any]
_log = log.get("server.link")


class Link:
    """A started worker process. Sending never blocks; messages from the worker go to `on_message`, in order.

    The worker gets its own session, so that Ctrl+C in the terminal reaches the server alone, which then ends it in order.
    """

    def __init__(self, process: asyncio.subprocess.Process, on_message: Callable[[Message], None]) -> None:
        self._process = process
        self._on_message = on_message
        self._reader = asyncio.create_task(self._read_all(), name=f"worker {process.pid} lines")

    @classmethod
    async def start(
        cls, command: Sequence[str], on_message: Callable[[Message], None], environment: dict[str, str] | None = None
    ) -> "Link":
        """Start `command`; raises OSError when it cannot be."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        return cls(process, on_message)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, message: Message) -> None:
        """Queue one line; without effect once the worker is gone or no longer reads."""
        stdin = self._process.stdin
        if stdin is None or stdin.is_closing() or self._process.returncode is not None:
            return
        if stdin.transport.get_write_buffer_size() > UNREAD_LIMIT:
            _log.error("worker %s doesn't read its messages: ending it", self.pid)
            self.kill()
            return
        stdin.write(orjson.dumps(message) + b"\n")

    async def ended(self) -> int:
        """Wait until the process has ended and its last line is handled; return its exit status (-N: signal N)."""
        status = await self._process.wait()
        # A grandchild may hold the pipe open: what is still unread after a moment is not waited for.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._reader), 2)
        self._reader.cancel()
        return status

    async def end(self, patience: float) -> None:
        """Ask the worker to stop; after `patience` seconds tell it with SIGTERM, after as many again with SIGKILL."""
        self.send({"kind": "stop"})
        stdin = self._process.stdin
        if stdin is not None:
            stdin.close()
        for last_word in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), patience)
                return
            _log.warning("worker %s doesn't stop: sending %s", self.pid, last_word.name)
            self._signal(last_word)
        await self._process.wait()

    def kill(self) -> None:
        """End the process at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _read_all(self) -> None:
        stdout = self._process.stdout
        if stdout is None:
            return
        while True:
            try:
                line = await stdout.readline()
            except ValueError:
                _log.error("worker %s sent a line over %d MiB: dropped", self.pid, LINE_LIMIT // 1024**2)
                continue
            if not line:
                return
            self._handle(line)

    def _handle(self, line: bytes) -> None:
        try:
            message = orjson.loads(line)
        except orjson.JSONDecodeError:
            _log.info("worker %s: %s", self.pid, line[:500].decode("utf-8", "replace").rstrip())
            return
        if isinstance(message, dict):
            self._on_message(message)
