"""Lets the n-th operation of a piece of work fail: SQL statements and commits, and operations on files of one folder.

When every later one fails too, the disk and the database are as a process leaves them that dies there.

`Faults.count` after a run without a fault says how many there are, so that a test finds out by itself.
"""

import asyncio
import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy.exc import OperationalError

from invokeclone.kit.resources import Resources
from invokeclone.kit.sql import transactions

STATEMENTS = {"execute", "executemany", "commit", "_execute_fetchall"}
FILE_CALLS = ("open", "replace", "rename", "mkdir", "fsync", "link", "unlink", "remove", "rmdir")


class Faults:
    """Counts operations while it is armed and lets one of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder = str(folder)
        self.count = 0
        self.failing = 0
        self.failed: str | None = None
        self.dead = threading.Event()
        """Set once an operation has failed."""
        self._armed = self._forever = False
        self._descriptors: set[int] = set()
        self._patch_sql(monkeypatch)
        for name in FILE_CALLS:
            self._patch_file(monkeypatch, name)

    @contextlib.contextmanager
    def armed(self, failing: int, *, forever: bool = False) -> Iterator[None]:
        """Let operation number `failing` (from 1) of the block fail, and `forever` all that follow; 0: none."""
        self.count, self.failing, self.failed, self._armed, self._forever = 0, failing, None, True, forever
        self.dead.clear()
        try:
            yield
        finally:
            self._armed = False

    def _next(self, what: str) -> bool:
        """Count one operation; tell whether it has to fail."""
        if not self._armed:
            return False
        self.count += 1
        if self.count == self.failing:
            self.failed = what
            self.dead.set()
            return True
        return self._forever and 0 < self.failing < self.count

    def _patch_sql(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original: Any = aiosqlite.Connection._execute
        faults = self

        async def execute(connection: Any, work: Any, *args: Any, **options: Any) -> Any:
            name = getattr(work, "__name__", "")
            if name in STATEMENTS and faults._next(f"SQL {args[0] if args else name}"):
                raise sqlite3.OperationalError("database or disk is full")
            return await original(connection, work, *args, **options)

        monkeypatch.setattr(aiosqlite.Connection, "_execute", execute)
        for owner, name in ((transactions, "fetch"), (transactions.Transaction, "many")):
            self._patch_statement(monkeypatch, owner, name)

    def _patch_statement(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(cursor: Any, sql: str, values: Any) -> Any:
            if self._next(f"SQL {sql}"):
                raise OperationalError(sql, None, sqlite3.OperationalError("database or disk is full"))
            return original(cursor, sql, values)

        monkeypatch.setattr(owner, name, call)

    def _patch_file(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        original = getattr(os, name)

        def call(target: Any, *args: Any, **options: Any) -> Any:
            if self._is_ours(name, target) and self._next(f"{name} {target}"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
            result = original(target, *args, **options)
            if name == "open" and self._is_ours(name, target):
                self._descriptors.add(result)
            return result

        monkeypatch.setattr(os, name, call)

    def _is_ours(self, name: str, target: Any) -> bool:
        if name == "fsync":
            return target in self._descriptors
        if not isinstance(target, (str, os.PathLike)) or not os.fspath(target).startswith(self.folder):
            return False
        return name != "mkdir" or not Path(target).is_dir()


def strays(folder: Path) -> list[str]:
    """Return what half-finished work left in a folder."""
    return [str(path) for path in folder.rglob("*") if path.name.endswith((".part", ".tmp"))]


async def image_names(resources: Resources) -> set[str]:
    """Return the names in the rows of images."""
    async with resources.database.read() as connection:
        rows = await connection.exec_driver_sql("SELECT image_name FROM images")
        return {str(row[0]) for row in rows}


async def check_images(resources: Resources) -> None:
    """Raise AssertionError unless each row has its two files, each file its row, and nothing is half-written."""
    folder = resources.settings.outputs_path / "images"
    files = {path.name for path in folder.glob("*.png")}
    small = {f"{path.stem}.png" for path in (folder / "thumbnails").glob("*.webp")}
    names = await image_names(resources)
    assert files == small == names, (files, small, names)
    assert await asyncio.to_thread(strays, resources.settings.root) == []
