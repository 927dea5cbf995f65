"""Transactions, migrations and concurrency of the database."""

import asyncio
import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import OperationalError

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files.storage_errors import DatabaseBusy, to_storage_error
from invokeclone.kit.sql.database import Database
from invokeclone.kit.sql.prepared_statements import PreparedStatement, parameter
from invokeclone.kit.sql.sqlite_database import SqliteDatabase
from invokeclone.tables import app_state, users


@pytest.fixture(autouse=True)
async def _empty(database: Database) -> None:
    """Leave the table that these tests write to without the rows that a new database has."""
    async with database.write() as connection:
        await connection.execute(app_state.delete())


async def test_a_write_is_committed_on_leaving(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(app_state.insert().values(key="a", value="1"))
    async with database.read() as connection:
        assert (await connection.execute(select(app_state.c.value))).scalars().all() == ["1"]


async def test_an_error_rolls_everything_back(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.write() as connection:
            await connection.execute(app_state.insert().values(key="a", value="1"))
            raise ZeroDivisionError
    async with database.read() as connection:
        assert (await connection.execute(select(app_state.c.value))).scalars().all() == []


async def test_concurrent_read_then_write_loses_nothing(database: Database, settings: Settings) -> None:
    """Forty increments over two Database objects (as two processes have them): none fails, none is lost."""
    other = SqliteDatabase(settings.database_path)
    async with database.write() as connection:
        await connection.execute(app_state.insert().values(key="n", value="0"))

    async def increment(through: Database) -> None:
        async with through.write() as connection:
            value = (await connection.execute(select(app_state.c.value))).scalar_one()
            await asyncio.sleep(0.001)
            await connection.execute(app_state.update().values(value=str(int(value) + 1)))

    await asyncio.gather(*(increment(database if n % 2 else other) for n in range(40)))
    async with database.read() as connection:
        assert (await connection.execute(select(app_state.c.value))).scalar_one() == "40"
    await other.close()


async def test_reads_do_not_wait_for_a_write(database: Database) -> None:
    async with database.write() as writing:
        await writing.execute(app_state.insert().values(key="a", value="1"))
        async with database.read() as reading:
            assert (await reading.execute(select(app_state))).all() == []


async def test_a_cancelled_write_is_rolled_back(database: Database) -> None:
    started = asyncio.Event()

    async def write() -> None:
        async with database.write() as connection:
            await connection.execute(app_state.insert().values(key="a", value="1"))
            started.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(write())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.write() as connection:
        assert (await connection.execute(select(app_state))).all() == []


async def test_migration_creates_the_system_user_once(database: Database) -> None:
    await database.migrate()
    async with database.read() as connection:
        assert (await connection.execute(select(users.c.user_id))).scalars().all() == ["system"]
        assert (await connection.execute(text("PRAGMA journal_mode"))).scalar() == "wal"
        assert (await connection.execute(text("PRAGMA foreign_keys"))).scalar() == 1


ADD = PreparedStatement(insert(app_state).values(key=parameter("key"), value="1"))


async def test_a_write_by_prepared_statements_alone_is_committed(database: Database) -> None:
    async with database.write() as connection:
        await ADD.rows(connection, key="a")
    with pytest.raises(ZeroDivisionError):
        async with database.write() as connection:
            await ADD.rows(connection, key="b")
            raise ZeroDivisionError
    async with database.read() as connection:
        assert (await connection.execute(select(app_state.c.key))).scalars().all() == ["a"]


async def test_an_external_write_lock_raises_the_sqlalchemy_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invokeclone.kit.sql.sqlite_database.BUSY_TIMEOUT_MS", 10)
    impatient = SqliteDatabase(settings.database_path)
    await impatient.migrate()
    with contextlib.closing(sqlite3.connect(settings.database_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError) as caught:
            async with impatient.write():
                pass
        with pytest.raises(OperationalError) as in_one_trip:
            await impatient.transact(lambda connection: ADD.rows(connection, key="a"))
    assert isinstance(to_storage_error(caught.value), DatabaseBusy)
    assert isinstance(to_storage_error(in_one_trip.value), DatabaseBusy)
    async with impatient.write() as connection:
        await ADD.rows(connection, key="a")
    await impatient.close()


async def test_single_reads_see_committed_data_and_take_turns(database: Database) -> None:
    async with database.write() as connection:
        await connection.exec_driver_sql("INSERT INTO app_state (key, value) VALUES ('a', '1')")
        assert await database.fetch("SELECT value FROM app_state WHERE key = 'a'", {}) == []
    reads = [database.fetch("SELECT value, :n FROM app_state WHERE key = 'a'", {"n": n}) for n in range(50)]
    assert await asyncio.gather(*reads) == [[("1", n)] for n in range(50)]


async def test_errors_of_single_reads_are_raised_to_the_caller(database: Database) -> None:
    with pytest.raises(OperationalError, match="no such table"):
        await database.fetch("SELECT 1 FROM nowhere", {})
    with pytest.raises(OverflowError):
        await database.fetch("SELECT :n", {"n": 2**70})
    assert await database.fetch("SELECT 1", {}) == [(1,)]


async def test_errors_of_prepared_statements_in_a_transaction_are_those_of_single_reads(database: Database) -> None:
    missing = PreparedStatement(text("SELECT 1 FROM nowhere"))
    async with database.read() as connection:
        for source in (connection, database):
            with pytest.raises(OperationalError, match="no such table"):
                await missing.rows(source)


async def test_a_file_that_cannot_be_opened_is_an_error_until_it_can(tmp_path: Path) -> None:
    """Such as with too many open files: a thread that ended then would leave its callers waiting."""
    file = tmp_path / "missing" / "file.db"
    database = SqliteDatabase(file)
    keys = PreparedStatement(select(app_state.c.key))

    async with asyncio.timeout(20):
        for _ in range(2):
            with pytest.raises(OperationalError, match="unable to open"):
                await keys.rows(database)
            with pytest.raises(OperationalError, match="unable to open"):
                await database.transact(keys.rows)
        file.parent.mkdir()
        with contextlib.closing(sqlite3.connect(file)) as other:
            other.execute("CREATE TABLE app_state (key, value)")
        assert await keys.rows(database) == await database.transact(keys.rows) == []
    await database.close()


async def test_close_stops_the_readers(settings: Settings, laid_out: None) -> None:
    opened = SqliteDatabase(settings.database_path)
    await asyncio.gather(*[opened.fetch("SELECT 1", {}) for _ in range(20)])
    readers = [thread for thread in threading.enumerate() if thread.name == "database-reader"]
    await opened.close()
    assert readers
    assert not any(thread.is_alive() for thread in readers)
