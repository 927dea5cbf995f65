"""Whether a process runs, by its number; processes of ours end with the one that started them, whatever they do."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.process.processes import PARENT, is_running

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends processes with their parents")
STARTER = """
import asyncio, importlib, sys
from invokeclone.kit.process.child_process import ChildProcess

async def main():
    child = await ChildProcess.start(sys.argv[2:], line_limit=10**6)
    child.send(sys.stdin.buffer.readline())
    line = await child.line()
    print(child.pid, line.decode(), end="", flush=True)
    await asyncio.sleep(10**6)

with asyncio.Runner(loop_factory=importlib.import_module(sys.argv[1]).new_event_loop) as runner:
    runner.run(main())
"""
"""Starts a command on a kind of event loop, hands it a line, and prints its number and its first line."""
HOLDS = """
import re
from invokeclone.kit.process.processes import end_with_parent
end_with_parent()
input()
print("ready", flush=True)
re.match(r"(a+)+$", "a" * 64 + "b")
"""
"""Holds the interpreter for longer than anybody waits."""


def test_is_running_distinguishes_live_and_ended_processes() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert is_running(str(os.getpid()))
    assert not is_running(str(ended.pid))


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "9" * 30])
def test_invalid_process_ids_are_not_running(text: str) -> None:
    assert not is_running(text)


Started = Callable[..., psutil.Process]


@pytest.fixture
def child_of_a_killed_parent() -> Iterator[Started]:
    """Start a command by another process, wait for its first line, and kill that process."""
    children: list[psutil.Process] = []

    def act(loop: str, command: list[str], line: str) -> psutil.Process:
        starter = subprocess.Popen(
            [sys.executable, "-c", STARTER, loop, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with starter:
            assert starter.stdin
            assert starter.stdout
            starter.stdin.write(line + "\n")
            starter.stdin.flush()
            number, _, first = starter.stdout.readline().partition(" ")
            assert first.strip()
            child = psutil.Process(int(number))
            children.append(child)
            child.send_signal(signal.SIGSTOP)  # like one whose interpreter is held: it reads nothing
            starter.kill()
        return child

    yield act
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def ends(child: psutil.Process) -> bool:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if not child.is_running() or child.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.01)
    return False


@LINUX
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_process_holding_the_gil_ends_with_its_parent(child_of_a_killed_parent: Started, loop: str) -> None:
    assert ends(child_of_a_killed_parent(loop, [sys.executable, "-c", HOLDS], ""))


@LINUX
def test_the_prompt_expansion_process_ends_with_its_parent(child_of_a_killed_parent: Started) -> None:
    request = {"prompt": "{a|b}", "max_prompts": 2, "seed": 1, "combinatorial": True}
    command = [sys.executable, "-m", "invokeclone.utilities.expander"]
    assert ends(child_of_a_killed_parent("uvloop", command, json.dumps(request)))


@LINUX
@pytest.mark.slow
def test_a_worker_ends_with_its_parent(child_of_a_killed_parent: Started, settings: Settings) -> None:
    hello = {"kind": "hello", "settings": settings.to_worker(), "packs": []}
    command = [sys.executable, "-m", "invokeclone.worker", "--device", "cpu"]
    assert ends(child_of_a_killed_parent("uvloop", command, json.dumps(hello)))


@LINUX
@pytest.mark.slow
def test_the_pack_inspection_process_ends_with_its_parent(child_of_a_killed_parent: Started, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "__init__.py").write_text("while True: pass")
    command = [sys.executable, "-m", "invokeclone.custom_nodes.describe_process", str(tmp_path), "pack"]
    assert ends(child_of_a_killed_parent("uvloop", command, ""))


@LINUX
def test_the_video_probe_process_ends_with_its_parent(tmp_path: Path) -> None:
    fifo = tmp_path / "video.mp4"
    os.mkfifo(fifo)
    code = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); input()"
    command = [sys.executable, "-m", "invokeclone.images.videos.probe", str(fifo)]
    with subprocess.Popen(
        [sys.executable, "-S", "-c", code, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout
        child = psutil.Process(int(starter.stdout.readline()))
        with fifo.open("wb"):  # it opens the file, thus has begun
            starter.kill()
            assert ends(child)


@LINUX
def test_a_process_whose_parent_is_already_gone_ends_at_once() -> None:
    code = "from invokeclone.kit.process.processes import end_with_parent; end_with_parent(); print('runs')"
    for parent, printed in ((os.getpid(), "runs\n"), (1, "")):
        result = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, PARENT: str(parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.stdout == printed
