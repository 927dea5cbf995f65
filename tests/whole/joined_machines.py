"""Machines that join a server with `invokeclone worker --join`, as processes that a test may stop and kill."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.server_process import Server

PACK = """
import time
from PIL import Image
from invokeai.invocation_api import BaseInvocation, ImageOutput, InputField, IntegerOutput, InvocationContext, invocation

@invocation("slow_number", title="Slow Number", category="tests", version="1.0.0", use_cache=False)
class SlowNumberInvocation(BaseInvocation):
    \"\"\"Takes its time.\"\"\"

    value: int = InputField(default=0, description="A number")
    seconds: float = InputField(default=0.5, description="Seconds")

    def invoke(self, context: InvocationContext) -> IntegerOutput:
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            time.sleep(0.02)
            context.util.signal_progress("Slow", None)
        return IntegerOutput(value=self.value)

@invocation("slow_image", title="Slow Image", category="tests", version="1.0.0", use_cache=False)
class SlowImageInvocation(SlowNumberInvocation):
    \"\"\"Takes its time, and saves an image of the color `value`.\"\"\"

    def invoke(self, context: InvocationContext) -> ImageOutput:
        super().invoke(context)
        return ImageOutput.build(context.images.save(Image.new("RGB", (16, 16), (self.value, 0, 0))))
"""


COMMAND = ("-m", "invokeclone")


def write_pack(root: Path) -> None:
    folder = root / "nodes" / "slow_pack"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PACK)


class JoinedMachine:
    """`invokeclone worker --join` on a root of its own."""

    def __init__(
        self, server: Server, name: str, token: str, *, url: str | None = None, command: tuple[str, ...] = COMMAND
    ) -> None:
        self.server = server
        self.url = url or server.url
        self.command = command
        self.name = name
        self.root = server.root.parent / name
        self.log = self.root.with_suffix(".log")
        self._token = token
        write_pack(self.root)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, *self.command, "worker", "--join", self.url, "--name", self.name),
                    *("--device", "cpu", "--root", str(self.root)),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "INVOKECLONE_WORKER_TOKEN": self._token},
            )

    def processes(self) -> list[psutil.Process]:
        """Return the agent and its worker process."""
        with contextlib.suppress(psutil.NoSuchProcess):
            agent = psutil.Process(self.process.pid)
            return [agent, *agent.children(recursive=True)]
        return []

    def kill_worker(self) -> None:
        for process in self.processes()[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def kill(self) -> None:
        """Kill everything at once, as a machine does that loses its power, and start it again."""
        self.end()
        self.process = self._start()

    def end(self) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        processes = self.processes()
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()


def batch(runs: int, seconds: float = 0.5, node_type: str = "slow_number") -> dict[str, Any]:
    node = {"id": "a", "type": node_type, "seconds": seconds}
    values = [{"node_path": "a", "field_name": "value", "items": list(range(runs))}]
    return {"batch": {"graph": {"id": "g", "nodes": {"a": node}, "edges": []}, "runs": 1, "data": [values]}}


def make_token(server: Server, **environment: str) -> str:
    """Create a worker token of the server."""
    command = [sys.executable, "-m", "invokeclone", "worker", "token", "create", "tests", "--root", str(server.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return done.stdout.strip()


def check_changes(rows: list[tuple[Any, ...]], item_ids: list[int]) -> None:
    """Check that each item had one holder at a time, and one end, by its last holder.

    `rows` are the changes of all items in their order: item id, status, worker id, fence.
    """
    histories: dict[int, list[tuple[str, str | None, int]]] = {item_id: [] for item_id in item_ids}
    for item_id, *change in rows:
        histories[item_id].append((change[0], change[1], change[2]))
    for item_id, history in histories.items():
        statuses = [status for status, _, _ in history]
        assert statuses[:-1] == (["in_progress", "pending"] * len(statuses))[: len(statuses) - 1], (item_id, history)
        assert statuses[-1] in ("completed", "failed"), (item_id, history)
        fences = [fence for _, _, fence in history]
        assert fences == sorted(fences), (item_id, history)
        assert all(
            fence > before
            for (status, _, fence), before in zip(history, [0, *fences], strict=False)
            if status == "in_progress"
        )
        if statuses[-1] == "completed":
            assert history[-1][1:] == history[-2][1:], (item_id, history)
