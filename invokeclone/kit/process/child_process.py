"""Child processes that communicate in lines over pipes.

A closed pipe is reported differently by each event loop (asyncio raises ConnectionError from `drain`, uvloop
RuntimeError from `write`). Here it is always the same: sent lines are lost, and the next line read is empty.
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
"""Errors raised by writing to a closed pipe: OSError on asyncio, RuntimeError on uvloop."""
DRAIN_S = 2.0
"""Seconds to wait for the last lines of a process that has ended: its own children may keep its pipe open."""


class LineTooLong(ValueError):
    """The process sent a line over the limit; the line is dropped and the next one is readable."""


class ChildEnded(Exception):
    """The process ended without an answer, also after a restart."""


class _Streams(SubprocessStreamProtocol):
    """Streams over the pipes, and an event for the end of the process.

    The `wait` of asyncio also waits for the pipes.
    """

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit, loop)
        self.ended = asyncio.Event()

    def process_exited(self) -> None:
        super().process_exited()
        self.ended.set()


class ChildProcess:
    """A started process in its own session, so that terminal signals do not reach it."""

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
        """Start `command`; its stderr goes to ours or is discarded. Raises OSError when it cannot be started.

        A process that calls `end_with_parent` ends with the current thread: call this in the event loop's main thread.
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
        """Number of bytes sent that the process has not read yet."""
        with contextlib.suppress(*PIPE_GONE):
            return self._streams.stdin.transport.get_write_buffer_size() if self._streams.stdin else 0
        return 0

    def send(self, line: bytes) -> None:
        """Queue one line including its line break; does nothing once the process has ended. Never blocks."""
        stdin = self._streams.stdin
        if stdin is None or stdin.is_closing() or self._transport.get_returncode() is not None:
            return
        with contextlib.suppress(*PIPE_GONE):
            stdin.write(line)

    async def line(self) -> bytes:
        """Return the next line including its line break, or an empty one at the end of the output.

        Raises LineTooLong.
        """
        assert self._streams.stdout is not None
        try:
            return await self._streams.stdout.readline()
        except ValueError as error:
            raise LineTooLong(str(error)) from error
        except PIPE_GONE:
            return b""

    def close_stdin(self) -> None:
        """Close the input of the process."""
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
        """Send SIGTERM to the process."""
        if self._transport.get_returncode() is None:
            with contextlib.suppress(ProcessLookupError):
                self._transport.terminate()

    def kill(self) -> None:
        """Kill the process and all processes in its session at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Kill the process and all processes in its session, and close its pipes."""
        self.kill()
        await asyncio.shield(self._close_pipes())

    async def _close_pipes(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._streams.ended.wait(), DRAIN_S)
        self.close_stdin()
        self._transport.close()


class LineServer:
    """A child process that answers each line with one line; started on first use and restarted when it has ended.

    Call all methods on one event loop; requests are handled one after the other.
    """

    def __init__(self, command: Sequence[str], *, timeout_s: float, line_limit: int) -> None:
        """Set the command, the seconds allowed per answer, and the maximum bytes of an answer."""
        self._command = tuple(command)
        self._timeout_s = timeout_s
        self._line_limit = line_limit
        self._child: ChildProcess | None = None
        self._lock = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The process id, None while no process runs."""
        return self._child.pid if self._child else None

    async def ask(self, line: bytes) -> bytes:
        """Return the answer to `line`, within `timeout_s` of the process being ready.

        An ended process is restarted once. Raises ChildEnded, LineTooLong, OSError when it cannot be started,
        TimeoutError; the process is killed on an error.
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
        """Start the process; if the caller is canceled meanwhile, the new process is closed."""
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
    """Call `on_line` for each line of `child` until its pipe is closed, `on_too_long` for each line over the limit."""
    while True:
        try:
            line = await child.line()
        except LineTooLong:
            on_too_long()
            continue
        if not line:
            return
        on_line(line)
