"""Conversion of errors of disks, storage services and databases to errors with an HTTP status.

no space, quota, file too large          507
read-only, no permission                 507
a storage service that does not respond  503
a name that is too long                  400
a database that is locked                503
a database that is full or read-only     507
a database server that does not answer   503
a change that may be stored              503
a value that no column can store         400
"""

import errno
import sqlite3

from invokeclone.kit.errors import BadRequest, InsufficientStorage, InvokeCloneError, Unavailable


class StorageFull(InsufficientStorage):
    """There is no space left on the disk."""

    def __init__(self) -> None:
        super().__init__("the server's disk is full: nothing was stored; free some space and try again")


class StorageReadOnly(InsufficientStorage):
    """The server has no permission for its files."""

    def __init__(self) -> None:
        super().__init__(
            "the server has no permission for its files or its storage: nothing was stored; its log names the file"
        )


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


class DatabaseUnreachable(Unavailable):
    """The database server does not accept connections, or ended this one."""

    headers = {"Retry-After": "5"}  # noqa: RUF012  (a constant of the class, as in the base)

    def __init__(self) -> None:
        super().__init__("the database server cannot be reached: nothing was stored; try again")


class DatabaseOutcomeUnknown(Unavailable):
    """The connection to the database server was lost while a change was committed."""

    def __init__(self) -> None:
        super().__init__("the connection to the database server was lost: check whether the change was stored")


class DatabaseReadOnly(InsufficientStorage):
    """The database server refuses changes: its user has too few rights, or the server is a standby."""

    def __init__(self) -> None:
        super().__init__("the database does not allow the server to write: nothing was stored; its log has the reason")


class ValueNotStorable(BadRequest):
    """A value is outside of what the database can store."""

    def __init__(self) -> None:
        super().__init__("a number or text is outside of what the database can store")


MAX_CAUSES = 10
"""Number of errors in a chain of causes that are looked at."""
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
_SQLSTATES: dict[str, type[InvokeCloneError]] = {
    "08": DatabaseUnreachable,
    "22": ValueNotStorable,
    "54000": ValueNotStorable,  # an indexed text that is too long
    "25006": DatabaseReadOnly,
    "42501": DatabaseReadOnly,
    "40": DatabaseBusy,
    "53100": StorageFull,
    "53": DatabaseBusy,
    "55P03": DatabaseBusy,
    "57": DatabaseUnreachable,
    "25P03": DatabaseUnreachable,
}
"""Error codes of PostgreSQL, or the class that the first two letters are."""
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
        if getattr(cause, "is_outcome_unknown", False):
            return DatabaseOutcomeUnknown()
        if storage_error := _convert(cause):
            return storage_error
        if isinstance(getattr(cause, "orig", None), OSError):  # of the connection to a database server
            return DatabaseUnreachable()
        cause = getattr(cause, "orig", None) or cause.__cause__
    return None


def _convert(error: BaseException) -> InvokeCloneError | None:
    if isinstance(error, sqlite3.Error):
        return _convert_sqlite(error)
    if type(error).__module__.startswith("asyncpg"):  # which SQLite's users do not import
        return _convert_postgres(error)
    if isinstance(error, StorageUnreachable):
        return StorageOutage()
    return _convert_os(error) if isinstance(error, OSError) and error.errno is not None else None


def _convert_os(error: OSError) -> InvokeCloneError | None:
    kind = next((kind for numbers, kind in _DISK.items() if error.errno in numbers), None)
    return kind() if kind else None


def _convert_sqlite(error: sqlite3.Error) -> InvokeCloneError | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and (kind := _SQLITE.get(code & 0xFF)):
        return kind()
    return next((kind() for text, kind in _SQLITE_TEXTS.items() if text in str(error)), None)


def _convert_postgres(error: BaseException) -> InvokeCloneError | None:
    state = getattr(error, "sqlstate", None)
    if not isinstance(state, str):  # an error of the client: a value that does not fit its column, a lost connection
        return ValueNotStorable() if isinstance(error, ValueError) else DatabaseUnreachable()
    kind = _SQLSTATES.get(state) or _SQLSTATES.get(state[:2])
    return kind() if kind else None


def startup_line(error: Exception) -> str | None:
    """Return one line for the user when `error` prevents startup; None when it is not a storage error."""
    cause = to_storage_error(error)
    if isinstance(cause, DatabaseBusy):
        return "the database is locked by another program: stop it, or try again"
    if (of_postgres := _postgres_cause(error)) is not None:
        detail = " ".join(str(of_postgres).split()) or type(of_postgres).__name__
        return f"cannot use the database: {detail}; correct database_url, or the rights of its user"
    if cause is None and not isinstance(error, OSError):
        return None
    location = f" at {error.filename}" if isinstance(error, OSError) and error.filename else ""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else getattr(error, "orig", error)
    hint = "grant permission, free space, or choose another --root"
    if location.startswith(" at s3://"):
        hint = "check storage_url, storage_endpoint, the credentials and their permissions"
    return f"cannot use the files{location}: {reason}; {hint}"


def _postgres_cause(error: BaseException) -> BaseException | None:
    """Return the PostgreSQL driver's error that caused `error`: a refusal of the server, or a lost connection."""
    cause: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if cause is None:
            return None
        if type(cause).__module__.startswith("asyncpg"):
            return cause if _convert_postgres(cause) is not None else None
        orig = getattr(cause, "orig", None)
        if isinstance(orig, OSError):
            return orig
        cause = orig or cause.__cause__
    return None
