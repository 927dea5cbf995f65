"""Child processes that are spoken to in lines over pipes; it knows processes and bytes, and no message's meaning.

A pipe whose other end is gone shows itself differently on each event loop (asyncio raises ConnectionError from `drain`, uvloop
RuntimeError from `write`). Here it is always the same: what is sent is lost, and the next line is empty.
"""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, SubprocessStreamProtocol
from collections.abc import Callable, Sequence
from typing import Any

from invokeclone.kit.process.processes import child_environment

PIPE_GONE = (OSError, RuntimeError)
"""What writing to a closed pipe raises: OSError on asyncio, RuntimeError on uvloop."""
DRAIN_S = 2.0
"""Seconds that are waited for the last lines of a process that has ended: its own children may hold its pipe open."""


class LineTooLong(ValueError):
    """The process sent a line over the limit; it is dropped, and the next one can be read."""


class ChildEnded(Exception):
    """The process ended instead of answering, each time it was started."""


class _Streams(SubprocessStreamProtocol):
    """Streams over the pipes, and whether the process has ended: asyncio's own `wait` also waits for the pipes."""

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit, loop)
        self.ended = asyncio.Event()

    def process_exited(self) -> None:
        super().process_exited()
        self.ended.set()


class ChildProcess:
    """A started process in a session of its own, so that a signal to the terminal does not reach it."""

    def __init__(self, transport: asyncio.SubprocessTransport, streams: _Streams) -> None:
        self._transport = transport
        self._streams = streams

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        line_limit: int,
        environment: dict[str, str] | None = None,
        stdin: bool = True,
        stderr: bool = True,
    ) -> "ChildProcess":
        """Start `command`; what it prints to stderr goes to ours, or nowhere. Raises OSError when it cannot be started.

        One that calls `end_with_parent` ends when this thread does: call it in the event loop's own, the main thread.
        """
        loop = asyncio.get_running_loop()
        transport, streams = await loop.subprocess_exec(
            lambda: _Streams(line_limit, loop),
            *command,
            stdin=PIPE if stdin else DEVNULL,
            stdout=PIPE,
            stderr=None if stderr else DEVNULL,
            start_new_session=True,
            env=child_environment(environment),
        )
        return cls(transport, streams)

    @property
    def pid(self) -> int:
        """The process id."""
        pid = self._transport.get_pid()
        assert pid is not None
        return pid

    @property
    def unread(self) -> int:
        """Bytes that were sent and that the process has not read yet."""
        with contextlib.suppress(*PIPE_GONE):
            return self._streams.stdin.transport.get_write_buffer_size() if self._streams.stdin else 0
        return 0

    def send(self, line: bytes) -> None:
        """Queue one line, which ends in a line break; without effect once the process is gone. Never blocks."""
        stdin = self._streams.stdin
        if stdin is None or stdin.is_closing() or self._transport.get_returncode() is not None:
            return
        with contextlib.suppress(*PIPE_GONE):
            stdin.write(line)

    async def line(self) -> bytes:
        """Return the next line, with its line break; empty once there are no more. Raises LineTooLong."""
        assert self._streams.stdout is not None
        try:
            return await self._streams.stdout.readline()
        except ValueError as error:
            raise LineTooLong(str(error)) from error
        except PIPE_GONE:
            return b""

    def close_stdin(self) -> None:
        """Let the process read the end of its input."""
        if self._streams.stdin is not None:
            with contextlib.suppress(*PIPE_GONE):
                self._streams.stdin.close()

    async def wait(self) -> int:
        """Wait until the process has ended; return its exit status (-N: signal N)."""
        await self._streams.ended.wait()
        status = self._transport.get_returncode()
        assert status is not None
        return status

    def terminate(self) -> None:
        """Ask the process to end."""
        if self._transport.get_returncode() is None:
            with contextlib.suppress(ProcessLookupError):
                self._transport.terminate()

    def kill(self) -> None:
        """End the process and whatever it has started, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def close(self) -> None:
        """End the process and everything it has started; when this returns, its pipes are closed too."""
        self.kill()
        await asyncio.shield(self._close_pipes())

    async def _close_pipes(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._streams.ended.wait(), DRAIN_S)
        self.close_stdin()
        self._transport.close()


class LineServer:
    """A child process that answers each line with one, started when first needed and again when it is gone.

    All methods belong on one event loop; questions are put one after the other.
    """

    def __init__(self, command: Sequence[str], *, timeout_s: float, line_limit: int) -> None:
        """Allow `patience` seconds for an answer, of `line_limit` bytes at most."""
        self._command = tuple(command)
        self._timeout_s = timeout_s
        self._line_limit = line_limit
        self._child: ChildProcess | None = None
        self._lock = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The id of the process, None while there is none."""
        return self._child.pid if self._child else None

    async def ask(self, line: bytes) -> bytes:
        """Return the answer to `line`, for which the process has `patience` from when it was started. One that has ended meanwhile (of idleness, say) is replaced once.

        Raises ChildEnded, LineTooLong, OSError when it cannot be started, TimeoutError; the process is ended then.
        """
        async with self._lock:
            for _try in range(2):
                child = self._child = self._child or await self._start()
                child.send(line)
                try:
                    answer = await asyncio.wait_for(child.line(), self._timeout_s)
                except BaseException:
                    await self._end()
                    raise
                if answer.endswith(b"\n"):
                    return answer
                await self._end()
        raise ChildEnded(f"{self._command[-1]} ended instead of answering")

    async def close(self) -> None:
        """End the process."""
        async with self._lock:
            await self._end()

    async def _start(self) -> ChildProcess:
        """Start the process; a caller that is canceled meanwhile leaves none behind."""
        starting = asyncio.ensure_future(ChildProcess.start(self._command, line_limit=self._line_limit, stderr=False))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            await (await starting).close()
            raise

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.close()


async def read_lines(child: ChildProcess, on_line: Callable[[bytes], Any], on_too_long: Callable[[], Any]) -> None:
    """Hand each line of `child` to `on_line` until its pipe is closed."""
    while True:
        try:
            line = await child.line()
        except LineTooLong:
            on_too_long()
            continue
        if not line:
            return
        on_line(line)
