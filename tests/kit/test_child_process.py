"""Child processes on both event loops: answers, deaths, replacement, time limits, and nothing left behind."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from invokeclone.kit.process.child_process import ChildEnded, ChildProcess, LineServer, LineTooLong, read_lines

ECHO = (sys.executable, "-S", "-u", "-c", "import sys\nfor line in sys.stdin: sys.stdout.write(line)")
DIES = (sys.executable, "-S", "-c", "import sys; sys.stdin.readline(); sys.exit(3)")
SILENT = (sys.executable, "-S", "-c", "import time; time.sleep(1000)")
HALF = (sys.executable, "-S", "-u", "-c", "import sys; sys.stdin.readline(); sys.stdout.write('half an answer')")
PARENT = (
    *(sys.executable, "-S", "-u", "-c"),
    "import subprocess, sys; print(subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(1000)']).pid)",
)

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine function to its end on one kind of event loop."""

    def act(work: Callable[[], Awaitable[Any]]) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(asyncio.wait_for(work(), 60))  # type: ignore[arg-type]

    return act


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_an_ended_process_is_replaced(run: Run) -> None:
    async def work() -> None:
        server = LineServer(ECHO, timeout_s=30, line_limit=1000)
        assert await server.ask(b"one\n") == b"one\n"
        first = server.pid
        assert first is not None
        os.kill(first, 9)
        await asyncio.sleep(0.3)  # the loop has noticed that the pipe is closed
        assert await server.ask(b"two\n") == b"two\n"
        assert server.pid != first
        os.kill(server.pid or 0, 9)  # and here it has not
        assert await server.ask(b"three\n") == b"three\n"
        last = server.pid
        await server.close()
        assert last is not None
        assert not alive(last)

    run(work)


@pytest.mark.parametrize("command", [DIES, HALF], ids=["nothing", "half a line"])
def test_a_process_that_keeps_ending_is_not_restarted_forever(run: Run, command: tuple[str, ...]) -> None:
    async def work() -> None:
        server = LineServer(command, timeout_s=30, line_limit=1000)
        with pytest.raises(ChildEnded):
            await server.ask(b"one\n")
        assert server.pid is None

    run(work)


def test_an_answer_timeout_kills_the_process(run: Run) -> None:
    async def work() -> None:
        server = LineServer(SILENT, timeout_s=0.3, line_limit=1000)
        with pytest.raises(TimeoutError):
            await server.ask(b"one\n")
        assert server.pid is None

    run(work)


def test_a_cancelled_request_kills_the_process(run: Run) -> None:
    async def work() -> None:
        server = LineServer(SILENT, timeout_s=30, line_limit=1000)
        asking = asyncio.create_task(server.ask(b"one\n"))
        await until(lambda: server.pid is not None)
        pid = server.pid
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert pid is not None
        assert not alive(pid)

    run(work)


def test_long_lines(run: Run) -> None:
    async def work() -> None:
        server = LineServer(ECHO, timeout_s=30, line_limit=1000)
        with pytest.raises(LineTooLong):
            await server.ask(b"x" * 5000 + b"\n")
        assert await server.ask(b"short\n") == b"short\n"
        await server.close()
        child = await ChildProcess.start(ECHO, line_limit=1000)
        lines: list[bytes] = []
        too_long: list[int] = []
        for line in (b"a\n", b"x" * 5000 + b"\n", b"b\n"):
            child.send(line)
        child.close_stdin()
        await read_lines(child, lines.append, lambda: too_long.append(1))
        assert (lines[0], lines[-1]) == (b"a\n", b"b\n")
        assert too_long
        assert await child.wait() == 0
        await child.close()

    run(work)


def test_sending_to_an_ended_process_is_ignored(run: Run) -> None:
    async def work() -> None:
        child = await ChildProcess.start(ECHO, line_limit=1000)
        child.kill()
        for _time in range(200):
            child.send(b"x" * 100_000 + b"\n")
            await asyncio.sleep(0)
        assert await child.line() == b""
        assert await child.wait() == -9
        child.send(b"lost\n")
        child.terminate()
        child.kill()
        assert child.unread >= 0
        await child.close()
        await child.close()

    run(work)


def test_a_live_process_that_closed_its_stdin(run: Run) -> None:
    async def work() -> None:
        command = (*ECHO[:4], "import sys, os, time; os.close(0); print('closed'); time.sleep(1000)")
        child = await ChildProcess.start(command, line_limit=1000)
        assert await child.line() == b"closed\n"
        for _time in range(20):
            child.send(b"x" * 100_000 + b"\n")
            await asyncio.sleep(0.005)
        assert child.unread >= 0
        await child.close()
        assert not alive(child.pid)

    run(work)


def test_grandchildren_end_on_close(run: Run) -> None:
    async def work() -> None:
        child = await ChildProcess.start(PARENT, line_limit=1000)
        grandchild = int(await child.line())
        assert await child.wait() == 0
        assert alive(grandchild)
        await child.close()
        await until(lambda: not alive(grandchild) or _zombie(grandchild))

    run(work)


def _zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"


def test_unknown_command(run: Run) -> None:
    async def work() -> None:
        server = LineServer(("/no/such/program",), timeout_s=30, line_limit=1000)
        with pytest.raises(OSError, match="No such file"):
            await server.ask(b"one\n")

    run(work)
