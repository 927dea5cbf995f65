"""Checks whether a database file may be opened and migrated, without writing: it may belong to another program.

Opening a file in WAL mode, even for reading, writes files beside it, so it is read as immutable. That ignores the
content of the WAL: `Database.migrate` checks the revision again once the file is known to be ours.
"""

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from invokeclone.kit.errors import Conflict

MAGIC = b"SQLite format 3\0"
HEADER = 100
INVOKEAI_TABLES = frozenset({"migrations", "applied_migrations"})
OWN_TABLE = "alembic_version"


class DatabaseUnusable(Conflict):
    """The database file is not usable by this version; the text says what to do."""


def check(path: Path, revisions: Collection[str]) -> None:
    """Raise DatabaseUnusable unless `path` is missing, empty, or at one of `revisions`, which are sorted."""
    if not path.exists() or path.stat().st_size == 0:
        return
    tables = _tables(path)
    if tables & INVOKEAI_TABLES:
        raise DatabaseUnusable(
            f"{path} is InvokeAI's own database: nothing was changed; give this server another folder with --root"
        )
    if tables and OWN_TABLE not in tables:
        raise DatabaseUnusable(
            f"{path} belongs to another program: nothing was changed; give this server another folder with --root"
        )
    check_revision(path, _revision(path) if tables else None, revisions)


def check_revision(address: Path | str, revision: str | None, revisions: Collection[str]) -> None:
    """Raise DatabaseUnusable for a revision that this version does not support."""
    if revision is not None and revision not in revisions:
        raise DatabaseUnusable(
            f"{address} was written by a newer version (revision {revision}, the newest supported is {max(revisions)}):"
            f" update this server, or give it another {'folder with --root' if isinstance(address, Path) else 'database'}"
        )


def corruption_error(path: Path, reason: object) -> DatabaseUnusable:
    """Return the error for a file that SQLite cannot read."""
    return DatabaseUnusable(f"{path} is damaged ({reason}): restore a backup, or move it away to start anew")


def _tables(path: Path) -> set[str]:
    """Return the names of the file's tables. Raises DatabaseUnusable when it is not a database, or truncated."""
    with path.open("rb") as file:
        header = file.read(HEADER)
    if len(header) < HEADER or not header.startswith(MAGIC):
        raise corruption_error(path, "it is not an SQLite database")
    wal = path.with_name(f"{path.name}-wal")
    if not wal.exists() or wal.stat().st_size == 0:
        _require_whole(path, header)
    return {str(name) for (name,) in _read(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}


def _require_whole(path: Path, header: bytes) -> None:
    page = int.from_bytes(header[16:18]) or 1
    page_size = 65536 if page == 1 else page
    pages = int.from_bytes(header[28:32])
    if header[24:28] == header[92:96] and path.stat().st_size < pages * page_size:
        raise corruption_error(path, "its end is missing")


def _revision(path: Path) -> str | None:
    rows = _read(path, f"SELECT version_num FROM {OWN_TABLE}")  # noqa: S608  (a constant)
    return str(rows[0][0]) if rows else None


def _read(path: Path, statement: str) -> list[tuple[object, ...]]:
    address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            return connection.execute(statement).fetchall()
    except sqlite3.OperationalError as error:
        raise DatabaseUnusable(f"{path} cannot be opened: {error}") from error
    except sqlite3.DatabaseError as error:
        raise corruption_error(path, error) from error
