"""Lets `invokeclone serve` or a worker kill itself (-9) before an operation: SQL of a write transaction, of files, or a line to the server.

Python imports this in each process that has this folder on its PYTHONPATH. `KILL_POINTS` is a folder in the root: a file
`arm FUNCTION` in it (JSON) says that operations count while that function runs, before which one, and which process dies;
`trace` gets every operation that counted. `KILL_DURING` lists the functions of the server.
"""

import functools
import importlib
import json
import os
import re
import signal
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("KILL_POINTS", "/nonexistent"))
COMMAND = " ".join(sys.orig_argv)
ROLE = "worker" if "-m invokeclone.worker" in COMMAND else "server" if "-m invokeclone serve" in COMMAND else ""
WRITING = os.O_WRONLY | os.O_RDWR
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"}
NAMES = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{8,}|tmpinstall_\w+|[0-9]+")


class Points:
    """Counts operations while it is armed; `victim` dies before the one that was asked for."""

    def __init__(self) -> None:
        self.armed = False
        self._seen: dict[str, int] = {}
        self._trace = -1
        self._order: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._busy = threading.local()

    def arm(self, function: str) -> bool:
        """Begin to count if the test asks for it at this function, once; tell whether it does."""
        request = _request(function)
        try:
            order = json.loads(request.read_text())
        except FileNotFoundError:
            return False
        request.unlink()
        self._trace = os.open(FOLDER / "trace", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._order, self._seen, self.armed = order, {}, True
        return True

    def reach(self, label: str) -> None:
        """Note that the operation is about to happen, or die."""
        if not self.armed or getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            with self._lock:
                self._seen[label] = self._seen.get(label, 0) + 1
                point = f"{label} #{self._seen[label]}"
                os.write(self._trace, f"{point}\n".encode())
                if point == self._order.get("point"):
                    if self._order["victim"] != ROLE:
                        os.kill(os.getppid(), signal.SIGKILL)
                        signal.pause()  # the kernel ends a worker with its server
                    os.kill(os.getpid(), signal.SIGKILL)
        finally:
            self._busy.now = False


def _request(function: str) -> Path:
    return FOLDER / f"arm {function}"


points = Points()


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if not points.armed or event not in FILE_EVENTS:
        return
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
        return
    path = next((os.fsdecode(part) for part in arguments[1::-1] if isinstance(part, (str, bytes))), "")
    if path.startswith(f"{FOLDER.parent}{os.sep}"):
        points.reach(f"{event} {NAMES.sub('*', os.path.relpath(path, FOLDER.parent))}")


class Connection(sqlite3.Connection):
    """Tells of statements from BEGIN IMMEDIATE on, and of the moment after COMMIT."""

    writing = False

    def traced(self, statement: str) -> None:
        if statement.startswith("BEGIN IMMEDIATE"):
            self.writing = True
        if self.writing and not statement.startswith("--"):
            points.reach(f"SQL {' '.join(re.findall(r'[A-Za-z_]+', statement[:200])[:4])}")
        if statement.startswith(("COMMIT", "ROLLBACK")):
            self.writing = False

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        cursor = super().execute(sql, *arguments)
        if sql == "COMMIT":
            points.reach("SQL after COMMIT")
        return cursor

    def commit(self) -> None:
        writes = self.in_transaction
        super().commit()
        if writes:
            points.reach("SQL after COMMIT")


def _patch_sqlite() -> None:
    connect = sqlite3.connect

    def run_traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, factory=Connection, **options)
        connection.set_trace_callback(connection.traced)
        return connection

    sqlite3.connect = run_traced  # type: ignore[assignment]


def _patch_fsync() -> None:
    fsync = os.fsync

    def run_traced(descriptor: int) -> None:
        points.reach("fsync")
        fsync(descriptor)

    os.fsync = run_traced  # type: ignore[assignment]


def _patch_link() -> None:
    from invokeclone.worker.link import ServerLink

    event = ServerLink.event

    def run_traced(link: Any, name: str, data: bytes, **options: Any) -> None:
        points.reach(f"event {name}")
        event(link, name, data, **options)

    ServerLink.event = run_traced  # type: ignore[method-assign]


def _during(name: str) -> None:
    """Count from the beginning of a coroutine function to its end, or for good if the test asks for `lasting`."""
    module, _, function = name.partition(":")
    owner: Any = importlib.import_module(module)
    *path, last = function.split(".")
    for part in path:
        owner = getattr(owner, part)
    original = getattr(owner, last)

    @functools.wraps(original)
    async def count_call(*arguments: Any, **options: Any) -> Any:
        counts = points.arm(name)
        try:
            return await original(*arguments, **options)
        finally:
            if counts and not points._order.get("lasting"):
                points.armed = False

    setattr(owner, last, count_call)


def _claim() -> None:
    """Count from the claim of an item to the next claim."""
    from invokeclone.queue import claims

    original = claims.claim

    async def count_call(resources: Any, *arguments: Any, **named: Any) -> Any:
        points.armed = False
        pending = "SELECT 1 FROM session_queue WHERE status = 'pending'"
        if _request("claim").exists() and await resources.database.fetch(pending, {}):
            points.arm("claim")
        return await original(resources, *arguments, **named)

    claims.claim = count_call  # type: ignore[assignment]


if ROLE and FOLDER.is_dir():
    _patch_sqlite()
    _patch_fsync()
    sys.addaudithook(_on_event)
    if ROLE == "worker":
        _patch_link()
        _claim()
    else:
        for one in os.environ["KILL_DURING"].split():
            _during(one)
