"""No transaction waits for anything but its statements, in any test: PostgreSQL ends one that is idle for 10 s, and no other write begins before.

While a connection of `Database.read` or `Database.write` is open, leaving the event loop (kit/process/offload.py) and
calling a storage fail. `Database.transact` allows nothing else by itself on SQLite.
"""

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from anyio import to_thread

from invokeclone.kit.process import offload
from invokeclone.kit.sql.database import Database
from invokeclone.kit.sql.postgres_database import PostgresDatabase
from invokeclone.kit.sql.sqlite_database import SqliteDatabase
from invokeclone.kit.storage.local import LocalStorage
from invokeclone.kit.storage.protocol import ObjectStorage
from invokeclone.kit.storage.s3 import S3Storage


class TransactionIsOpen(AssertionError):
    """Something other than a statement is waited for inside a transaction."""


class _Transaction:
    is_open = True


_current: ContextVar[_Transaction | None] = ContextVar("transaction", default=None)
LOCAL = {"address", "local_path", "presign"}
"""Methods of a storage that wait for nothing."""


def check(what: str) -> None:
    transaction = _current.get()
    if transaction is not None and transaction.is_open:
        raise TransactionIsOpen(f"{what} inside a transaction: do it before or after")


def _noted(begin: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @contextlib.asynccontextmanager
    async def note(database: Database) -> AsyncIterator[Any]:
        async with begin(database) as connection:
            outer, transaction = _current.get(), _Transaction()
            _current.set(transaction)  # tasks that begin inside inherit it, so that its end is in the object
            try:
                yield connection
            finally:
                transaction.is_open = False
                _current.set(outer)

    return note


def _checked(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        check(what)
        return function(*arguments, **options)

    return checked


@pytest.fixture(autouse=True, scope="session")
def transactions_wait_for_statements_only() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for database in (SqliteDatabase, PostgresDatabase):
            for name in ("read", "write"):
                patch.setattr(database, name, _noted(getattr(database, name)))
        patch.setattr(offload, "run_sync", _checked(to_thread.run_sync, "a thread is waited for"))
        for storage in (LocalStorage, S3Storage):
            for name in vars(ObjectStorage):
                if not name.startswith("_") and name not in LOCAL:
                    patch.setattr(storage, name, _checked(getattr(storage, name), f"storage.{name} is called"))
        yield
