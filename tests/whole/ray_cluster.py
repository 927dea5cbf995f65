"""Local Ray nodes and `invokeclone cluster ray`, as processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.server_process import PATIENCE
from tests.whole.joined_machines import write_pack

RAY_TOKEN = "tests-0123456789abcdef0123456789abcdef"
NODE = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 80_000_000}


class RayNodes:
    """A local Ray cluster in a process of its own, since Ray's state is of the process: a head and another node."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.log = folder / "nodes.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("ray_nodes.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **environment},
            )
        self.address = self._answer()

    def do(self, command: str) -> str:
        """Have the cluster `add` or `kill` the second node."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("answer "):
                return line.removeprefix("answer ").strip()
        raise AssertionError(self.log.read_text()[-4000:])

    def close(self) -> None:
        assert self.process.stdin is not None
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.stdin.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.wait(60)
        for child in children:
            if child.is_running():
                child.kill()


class RayCommand:
    """`invokeclone cluster ray` as a process."""

    def __init__(self, folder: Path, address: str, url: str, token: str, *arguments: str, **environment: str) -> None:
        self.log = folder / "command.log"
        self.root = folder / "worker"
        if not self.root.exists():
            write_pack(self.root)
        command = [*(sys.executable, "-m", "invokeclone", "cluster", "ray", "--address", address, "--join", url)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--root", str(self.root), *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "INVOKECLONE_WORKER_TOKEN": token, **environment},
            )

    def has_printed(self, text: str) -> Callable[[], bool]:
        return lambda: text in self.log.read_text()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE)


AUTH = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": RAY_TOKEN}
