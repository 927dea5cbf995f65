"""Errors of asyncpg as SQLAlchemy's, which the callers of both databases expect."""

import contextlib
from collections.abc import Iterator

import asyncpg
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError, ProgrammingError

_KINDS: tuple[tuple[type[BaseException], type[DBAPIError]], ...] = (
    (asyncpg.IntegrityConstraintViolationError, IntegrityError),
    (asyncpg.DataError, DataError),
    (asyncpg.exceptions.DataError, DataError),
    (asyncpg.exceptions.SyntaxOrAccessError, ProgrammingError),
    (asyncpg.PostgresError, OperationalError),
    (asyncpg.InterfaceError, InterfaceError),
    (OSError, OperationalError),
    (TimeoutError, OperationalError),
)

LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    asyncpg.exceptions.ConnectionDoesNotExistError,
    asyncpg.InternalClientError,  # an operation after the server's message that it ends the connection
    OSError,
)
"""Errors after which the connection is gone."""


@contextlib.contextmanager
def translating(sql: str) -> Iterator[None]:
    """Raise errors of the driver inside as SQLAlchemy's."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        raise translate(sql, error) from error


@contextlib.contextmanager
def internal_translated() -> Iterator[None]:
    """Raise the driver's internal errors, which SQLAlchemy does not know, as SQLAlchemy's; others are not changed."""
    try:
        yield
    except asyncpg.InternalClientError as error:
        raise translate("", error) from error


def translate(sql: str, error: BaseException) -> DBAPIError:
    """Return SQLAlchemy's error for one of the driver."""
    kind = next((kind for cause, kind in _KINDS if isinstance(error, cause)), OperationalError)
    if kind is InterfaceError and is_lost(error):  # callers try again after an OperationalError
        kind = OperationalError
    return kind(sql, None, error)


def is_lost(error: BaseException) -> bool:
    """Return whether the connection is gone."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return isinstance(cause, LOST) or (isinstance(cause, asyncpg.InterfaceError) and "closed" in str(cause))
