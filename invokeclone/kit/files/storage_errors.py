"""Conversion of errors of disks, storage services and databases to errors with an HTTP status.

no space, quota, file too large          507
read-only, no permission                 507
a storage service that does not respond  503
a name that is too long                  400
a database that is locked                503
a database that is full or read-only     507
"""

import errno
import sqlite3

from invokeclone.kit.errors import BadRequest, InsufficientStorage, InvokeCloneError, Unavailable


class StorageFull(InsufficientStorage):
    """There is no space left on the disk."""

    def __init__(self) -> None:
        super().__init__("the server's disk is full: nothing was stored; free some space and try again")


class StorageReadOnly(InsufficientStorage):
    """The server has no write permission for its files."""

    def __init__(self) -> None:
        super().__init__("the server may not write to its folders: nothing was stored; its log names the file")


class StorageUnreachable(OSError):
    """A storage service on the network does not respond, or responds with an error of its own."""


class StorageOutage(Unavailable):
    """The storage service cannot be used at the moment."""

    def __init__(self) -> None:
        super().__init__("the server cannot reach its storage: try again; its log has the reason")


class NameTooLong(BadRequest):
    """A name is longer than the file system allows."""

    def __init__(self) -> None:
        super().__init__("a name is too long for the server's file system: choose a shorter one")


class DatabaseBusy(Unavailable):
    """Another process keeps the database's write lock for too long."""

    headers = {"Retry-After": "1"}  # noqa: RUF012  (a constant of the class, as in the base)

    def __init__(self) -> None:
        super().__init__("the database is busy; try again")


FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_DISK: dict[frozenset[int], type[InvokeCloneError]] = {
    FULL: StorageFull,
    READ_ONLY: StorageReadOnly,
    frozenset({errno.ENAMETOOLONG}): NameTooLong,
}
_SQLITE: dict[int, type[InvokeCloneError]] = {
    sqlite3.SQLITE_FULL: StorageFull,
    sqlite3.SQLITE_READONLY: StorageReadOnly,
    sqlite3.SQLITE_CANTOPEN: StorageReadOnly,
    sqlite3.SQLITE_PERM: StorageReadOnly,
    sqlite3.SQLITE_BUSY: DatabaseBusy,
    sqlite3.SQLITE_LOCKED: DatabaseBusy,
}
_SQLITE_TEXTS: dict[str, type[InvokeCloneError]] = {
    "disk is full": StorageFull,
    "readonly database": StorageReadOnly,
    "unable to open": StorageReadOnly,
    "locked": DatabaseBusy,
}


def to_storage_error(error: BaseException) -> InvokeCloneError | None:
    """Return the client error for `error` or its causes; None when it is not a storage error."""
    visited: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in visited:
        visited.add(id(cause))
        if storage_error := _convert(cause):
            return storage_error
        cause = getattr(cause, "orig", None) or cause.__cause__
    return None


def _convert(error: BaseException) -> InvokeCloneError | None:
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and (kind := _SQLITE.get(code & 0xFF)):
            return kind()
        return next((kind() for text, kind in _SQLITE_TEXTS.items() if text in str(error)), None)
    if isinstance(error, StorageUnreachable):
        return StorageOutage()
    if not isinstance(error, OSError) or error.errno is None:
        return None
    kind = next((kind for numbers, kind in _DISK.items() if error.errno in numbers), None)
    return kind() if kind else None


def startup_line(error: Exception) -> str | None:
    """Return one line for the user when `error` prevents startup; None when it is not a storage error."""
    cause = to_storage_error(error)
    if isinstance(cause, DatabaseBusy):
        return "the database is locked by another program: stop it, or try again"
    if cause is None and not isinstance(error, OSError):
        return None
    location = f" at {error.filename}" if isinstance(error, OSError) and error.filename else ""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else getattr(error, "orig", error)
    return f"cannot use the files{location}: {reason}; grant permission, free space, or choose another --root"
