"""The SQLite database behind SQLAlchemy Core: single reads, read connections, write transactions, migrations.

It knows pragmas, transactions and Alembic, and no table. Nobody else begins or commits.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from invokeclone.kit import log
from invokeclone.kit.files.storage import OWNER_FILE_MODE, create, make_private_folder, restrict
from invokeclone.kit.sql import database_file, transactions
from invokeclone.kit.sql.case_folding import casefold_like, fold
from invokeclone.kit.sql.transactions import Changes, Result, Rows, fetch

_log = log.get("kit.database")

BUSY_TIMEOUT_MS = 30_000
READERS = 6
"""Threads that answer single reads; more reads than this wait for one another."""
MMAP_SIZE = 2**31 - 2**16
"""Bytes of the file that are read as memory, all that SQLite allows: long lists of a large gallery read 100 MB of an index."""


def _on_connect(connection: Any, _record: Any) -> None:
    """Set what SQLite keeps per connection, and leave transactions to us instead of the driver."""
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
        "wal_autocheckpoint = 8000",  # 32 MB: a thousand items of 6 kB each don't checkpoint in mid-insert
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


async def _await_driver(statement: str, operation: Awaitable[Any]) -> None:
    """Await what the driver does; its errors are raised as SQLAlchemy raises them."""
    try:
        await operation
    except sqlite3.OperationalError as error:
        raise OperationalError(statement, None, error) from error


class _ConnectionThread:
    """A thread with a connection of its own.

    Through a pool of connections and a driver that knows futures, a read makes six trips to a thread; here it makes one.
    """

    def __init__(self, path: Path, name: str) -> None:
        """Start the thread; it connects to the file at `path` for its first work."""
        self._path = path
        self.busy = 0
        self._jobs: queue.SimpleQueue[Callable[[sqlite3.Connection], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=f"database-{name}", daemon=True)
        self._thread.start()

    def run(
        self,
        work: Callable[[sqlite3.Connection], Result],
        on_free: Callable[["_ConnectionThread"], None] = lambda _thread: None,
    ) -> asyncio.Future[Result]:
        """Return the result to be; `done` is called on the event loop once the thread is free again."""
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
                future.set_result(result)  # type: ignore[arg-type]  # without an error it is one

        def job(connection: sqlite3.Connection) -> None:
            result: Result | None = None
            error: BaseException | None = None
            try:
                result = work(connection)
            except BaseException as problem:  # noqa: BLE001  (whatever it is, it belongs to whoever waits)
                error = problem
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, result, error)

        self._jobs.put(job)
        return future

    def close(self) -> None:
        """End the thread after what it has been given."""
        self._jobs.put(None)
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.closing(sqlite3.connect(self._path)) as connection:
            _on_connect(connection, None)
            while (job := self._jobs.get()) is not None:
                job(connection)


class Database:
    """One SQLite file shared by the server and its workers.

    Reads never wait for a write (WAL). A write transaction is immediate: it takes the write lock at its start, so a
    read-then-write transaction can't fail half-way with "database is locked".
    """

    def __init__(self, path: Path | None, *, echo: bool = False) -> None:
        """Open (lazily) the file at `path`, or a database in memory for None; `echo` logs each statement."""
        self.path = path
        target = path if path is not None else ":memory:"
        # The connection that was given back last is lent first: what another one writes empties its cache of pages.
        pool: dict[str, Any] = {"pool_use_lifo": True} if path is not None else {"poolclass": StaticPool}
        pool["pool_reset_on_return"] = None  # what is lent comes back without a transaction
        self._engine: AsyncEngine = create_async_engine(f"sqlite+aiosqlite:///{target}", echo=echo, **pool)
        self._writing = asyncio.Lock()
        self._readers: list[_ConnectionThread] = []
        self._free: list[_ConnectionThread] = []
        self._writer: _ConnectionThread | None = None
        self._next = 0
        event.listen(self._engine.sync_engine, "connect", _on_connect)

    async def fetch(self, sql: str, values: dict[str, Any]) -> Rows:
        """Run one SELECT by itself and return its rows, in one trip to a thread: no transaction is begun, no type converted."""
        if self.path is None:  # a database in memory is one connection
            async with self.read() as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                assert driver is not None
                return list(await driver.execute_fetchall(sql, values))
        return await self._reader(self.path).run(lambda connection: fetch(connection, sql, values), self._mark_free)

    def _mark_free(self, reader: _ConnectionThread) -> None:
        if not reader.busy and reader in self._readers:
            self._free.append(reader)

    def _reader(self, path: Path) -> _ConnectionThread:
        """Return the reader that was free last, a new one, or the one whose turn it is to have something waiting."""
        if self._free:
            return self._free.pop()
        if len(self._readers) < READERS:
            self._readers.append(_ConnectionThread(path, "reader"))
            return self._readers[-1]
        self._next += 1
        return self._readers[self._next % READERS]

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection for reading; what it reads in one transaction is of one moment."""
        async with self._engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            try:
                await driver.execute("BEGIN")  # one trip to the driver's thread; through SQLAlchemy it is three
                yield connection
            finally:
                await asyncio.shield(driver.rollback())

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection inside an immediate transaction: committed on leaving, rolled back on an error.

        Writers of this process queue up here, where waiting costs nothing; those of other processes wait in SQLite.
        """
        async with self._writing, self._engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            try:
                await _await_driver("BEGIN IMMEDIATE", driver.execute("BEGIN IMMEDIATE"))  # one trip, as in `read`
                yield connection
                await _await_driver(
                    "COMMIT", driver.commit()
                )  # through SQLAlchemy it would be left out unless SQLAlchemy began
            except BaseException:
                await asyncio.shield(driver.rollback())
                raise

    async def transact(self, work: Callable[[Changes], Coroutine[Any, Any, Result]]) -> Result:
        """Run `work` in an immediate transaction, commit, and return its result: all of it in one trip to a thread.

        `work` may wait for prepared statements only (kit/sql/prepared_statements.py). What it raises, and a cancellation that comes before
        the commit, rolls back.
        """
        if self.path is None:  # a database in memory is one connection
            async with self.write() as connection:
                return await work(connection)
        async with self._writing:
            if self._writer is None:
                self._writer = _ConnectionThread(self.path, "writer")
            abandoned = threading.Event()
            future = self._writer.run(lambda connection: transactions.run(connection, work, abandoned))
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                abandoned.set()
                await asyncio.wait([future])  # the next writer begins when this one has ended
                raise

    async def migrate(self) -> None:
        """Bring the schema to the newest revision; cheap when it is there already. Alembic is imported only if needed.

        Raises DatabaseUnusable, with nothing written, for a file that is not ours, newer or damaged.
        """
        await asyncio.to_thread(self._upgrade)

    def _upgrade(self) -> None:
        if self.path is None:
            raise ValueError("a database in memory is made by tables.metadata.create_all, not by migrations")
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
    """Make the file, which holds password hashes and the secret of the tokens, unless it is there, so that only its owner reads it.

    SQLite gives the files beside it the same rights.
    """
    make_private_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        create(path, OWNER_FILE_MODE).close()


def _restrict_to_owner(path: Path) -> None:
    """Take from everybody else what an earlier version gave."""
    restricted = [restrict(path.with_name(f"{path.name}{ending}")) for ending in ("", "-wal", "-shm")]
    if any(restricted):
        _log.warning("%s could be read by other accounts of this machine; now only its owner may", path)
