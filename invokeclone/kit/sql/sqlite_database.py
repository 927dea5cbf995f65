"""SQLite with SQLAlchemy Core: single reads, read connections, write transactions, migrations.

Sets pragmas and controls transactions: no other module begins or commits. Does not depend on the tables.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import event
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from invokeclone.kit import log
from invokeclone.kit.files.storage import OWNER_FILE_MODE, create, make_private_folder, restrict
from invokeclone.kit.process.offload import shield
from invokeclone.kit.sql import database_file, transactions
from invokeclone.kit.sql.case_folding import casefold_like, fold
from invokeclone.kit.sql.database import Database
from invokeclone.kit.sql.key_locks import KeyLocks
from invokeclone.kit.sql.transactions import Changes, Dialect, Result, Rows, fetch

_log = log.get("kit.database")

BUSY_TIMEOUT_MS = 30_000
READERS = 6
"""Threads for single reads; further concurrent reads wait."""
MMAP_SIZE = 2**31 - 2**16
"""Bytes of the file that are memory-mapped, SQLite's maximum: long lists of a large gallery read 100 MB of an index."""


def _on_connect(connection: Any, _record: Any) -> None:
    """Set SQLite's per-connection options, and disable the driver's own transaction control."""
    connection.isolation_level = None
    connection.create_function("casefold", 1, fold, deterministic=True)
    connection.create_function("folded_like", 2, casefold_like, deterministic=True)
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "foreign_keys = ON",
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "synchronous = NORMAL",
        "cache_size = -16000",
        "temp_store = MEMORY",
        f"mmap_size = {MMAP_SIZE}",
        "wal_autocheckpoint = 8000",  # 32 MB: inserting a thousand items of 6 kB each causes no checkpoint
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


async def _await_driver(statement: str, operation: Awaitable[Any]) -> None:
    """Await a driver operation and raise its errors as SQLAlchemy does."""
    try:
        await operation
    except sqlite3.OperationalError as error:
        raise OperationalError(statement, None, error) from error


class _ConnectionThread:
    """A thread with its own connection.

    Through a connection pool and an async driver, a read makes six thread hops; here it makes one.
    """

    def __init__(self, path: Path, name: str) -> None:
        """Start the thread; its first job opens the file at `path`, or the next one if that fails."""
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self.busy = 0
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=f"database-{name}", daemon=True)
        self._thread.start()

    def run(
        self,
        work: Callable[[sqlite3.Connection], Result],
        on_free: Callable[["_ConnectionThread"], None] = lambda _thread: None,
    ) -> asyncio.Future[Result]:
        """Return a future for the result; `on_free` is called on the event loop when the thread is free again."""
        loop = asyncio.get_running_loop()
        self.busy += 1
        future: asyncio.Future[Result] = loop.create_future()

        def settle(result: Result | None, error: BaseException | None) -> None:
            self.busy -= 1
            on_free(self)
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # not None without an error

        def job() -> None:
            result: Result | None = None
            error: BaseException | None = None
            try:
                result = work(self._open())
            except BaseException as problem:  # noqa: BLE001  (passed on through the future)
                error = problem
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, result, error)

        self._jobs.put(job)
        return future

    def close(self) -> None:
        """End the thread after its queued jobs."""
        self._jobs.put(None)
        self._thread.join()

    def _open(self) -> sqlite3.Connection:
        """Return the thread's connection. Raises OperationalError."""
        if self._connection is None:
            try:
                connection = sqlite3.connect(self._path)
                try:
                    _on_connect(connection, None)
                except BaseException:
                    connection.close()
                    raise
            except sqlite3.OperationalError as error:
                raise OperationalError("connect", None, error) from error
            self._connection = connection
        return self._connection

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
        if self._connection is not None:
            self._connection.close()


class SqliteDatabase(Database):
    """One SQLite file shared by the server and its workers.

    Reads never wait for a write (WAL). A write transaction is immediate: it takes the write lock at its start, so a
    read-then-write transaction cannot fail half-way with "database is locked".
    """

    dialect: ClassVar[Dialect] = "sqlite"
    is_shared: ClassVar[bool] = False

    def __init__(self, path: Path | None, *, echo: bool = False) -> None:
        """Configure the file at `path`, opened on first use, or an in-memory database for None.

        `echo` logs each statement.
        """
        self.path = path
        target = path if path is not None else ":memory:"
        # The most recently returned connection is used first: a write by another connection invalidates its page cache.
        pool: dict[str, Any] = {"pool_use_lifo": True} if path is not None else {"poolclass": StaticPool}
        pool["pool_reset_on_return"] = None  # connections are returned without a transaction
        self._engine: AsyncEngine = create_async_engine(f"sqlite+aiosqlite:///{target}", echo=echo, **pool)
        self._writing = asyncio.Lock()
        self._locks = KeyLocks()
        self._readers: list[_ConnectionThread] = []
        self._free: list[_ConnectionThread] = []
        self._writer: _ConnectionThread | None = None
        self._next = 0
        event.listen(self._engine.sync_engine, "connect", _on_connect)

    @property
    def address(self) -> str:
        """The file."""
        return str(self.path or ":memory:")

    async def fetch(self, sql: str, values: Any) -> Rows:
        """Run one SELECT on its own and return its rows in one thread hop.

        There is no explicit transaction and no type conversion.
        """
        if self.path is None:  # an in-memory database has a single connection
            async with self.read() as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                assert driver is not None
                return list(await driver.execute_fetchall(sql, values))
        return await self._reader(self.path).run(lambda connection: fetch(connection, sql, values), self._mark_free)

    def _mark_free(self, reader: _ConnectionThread) -> None:
        if not reader.busy and reader in self._readers:
            self._free.append(reader)

    def _reader(self, path: Path) -> _ConnectionThread:
        """Return the most recently freed reader, a new one, or the next one round-robin, which is busy."""
        if self._free:
            return self._free.pop()
        if len(self._readers) < READERS:
            self._readers.append(_ConnectionThread(path, "reader"))
            return self._readers[-1]
        self._next += 1
        return self._readers[self._next % READERS]

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection for reading in one transaction, thus from one snapshot."""
        async with self._engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            try:
                await _await_driver(
                    "BEGIN", driver.execute("BEGIN")
                )  # one hop to the driver's thread; through SQLAlchemy it is three
                yield connection
            finally:
                await asyncio.shield(driver.rollback())

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in an immediate transaction: committed at the end, rolled back on an error.

        Writers of this process wait for a lock here, which is cheap; those of other processes wait in SQLite.
        """
        async with self._writing, self._engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            try:
                await _await_driver("BEGIN IMMEDIATE", driver.execute("BEGIN IMMEDIATE"))  # one hop, as in `read`
                yield connection
                await _await_driver(
                    "COMMIT", driver.commit()
                )  # SQLAlchemy skips the COMMIT of a transaction that it did not begin
            except BaseException:
                await asyncio.shield(driver.rollback())
                raise

    async def transact(
        self,
        work: Callable[[Changes], Coroutine[Any, Any, Result]],
        *,
        exclusive: bool = True,  # noqa: ARG002  (SQLite has one writer at a time)
    ) -> Result:
        """Run `work` in an immediate transaction, commit, and return its result, all in one thread hop."""
        if self.path is None:  # an in-memory database has a single connection
            async with self.write() as connection:
                return await work(connection)
        async with self._writing:
            if self._writer is None:
                self._writer = _ConnectionThread(self.path, "writer")
            abandoned = threading.Event()
            future = self._writer.run(lambda connection: transactions.run(connection, work, abandoned))
            try:
                return await shield(future)
            except asyncio.CancelledError:
                abandoned.set()
                await asyncio.wait([future])  # the next writer starts only after this one has ended
                raise

    @contextlib.asynccontextmanager
    async def try_lock(self, key: int) -> AsyncIterator[bool]:  # noqa: ARG002
        """Yield True: the lock of the root lets no other server use the file."""
        yield True

    @contextlib.asynccontextmanager
    async def lock(self, keys: Iterable[int]) -> AsyncIterator[None]:
        """Hold the locks of `keys` in the block; no other server uses the file."""
        async with self._locks.hold(keys):
            yield

    async def check(self, revisions: Sequence[str]) -> None:
        """Raise DatabaseUnusable for a file of another program, a newer version, or a damaged file."""
        if self.path is not None:
            await asyncio.to_thread(database_file.check, self.path, revisions)

    async def migrate(self) -> None:
        """Migrate the schema to the newest revision; imports Alembic only if a migration is needed."""
        await asyncio.to_thread(self._upgrade)

    def _upgrade(self) -> None:
        if self.path is None:
            raise ValueError("an in-memory database is created with tables.metadata.create_all, not with migrations")
        from invokeclone.kit.sql import migrations

        revisions = migrations.revisions()
        database_file.check(self.path, revisions)
        _create_private(self.path)
        try:
            current = migrations.current(self.path)
            database_file.check_revision(self.path, current, revisions)
            _restrict_to_owner(self.path)
            if current != revisions[-1]:
                migrations.upgrade(self.path)
        except (sqlite3.DatabaseError, DatabaseError) as error:
            cause = getattr(error, "orig", error)
            if isinstance(cause, sqlite3.OperationalError):
                raise
            raise database_file.corruption_error(self.path, cause) from error

    async def close(self) -> None:
        """Close every connection."""
        threads, self._readers, self._free = self._readers, [], []
        if self._writer is not None:
            threads, self._writer = [*threads, self._writer], None
        for thread in threads:
            await asyncio.to_thread(thread.close)
        await self._engine.dispose()


def _create_private(path: Path) -> None:
    """Create the file, unless it exists, for its owner only: it contains password hashes and the token secret.

    SQLite gives the WAL and shared-memory files the same permissions.
    """
    make_private_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        create(path, OWNER_FILE_MODE).close()


def _restrict_to_owner(path: Path) -> None:
    """Remove the permissions of group and others that an earlier version set."""
    restricted = [restrict(path.with_name(f"{path.name}{ending}")) for ending in ("", "-wal", "-shm")]
    if any(restricted):
        _log.warning("%s was readable by other accounts of this machine; now only its owner has access", path)
