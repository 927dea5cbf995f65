"""Transactions that run on the database's thread."""

import asyncio
import gc
import threading
from typing import Any

import pytest
from sqlalchemy import delete, insert, select
from sqlalchemy.exc import OperationalError

from invokeclone.kit.sql.database import Database
from invokeclone.kit.sql.prepared_statements import DialectSql, PreparedStatement, parameter, run_many
from invokeclone.kit.sql.sqlite_database import SqliteDatabase
from invokeclone.kit.sql.transactions import Changes
from invokeclone.tables import app_state

ADD = PreparedStatement(insert(app_state).values(key=parameter("key"), value="1").returning(app_state.c.key))
KEYS = PreparedStatement(select(app_state.c.key).order_by(app_state.c.key))
EMPTY = PreparedStatement(delete(app_state))


@pytest.fixture(autouse=True)
async def _empty(database: Database) -> None:
    await database.transact(EMPTY.rows)


async def add(connection: Changes) -> str:
    """Add a row and see it."""
    await ADD.rows(connection, key="a")
    row = await KEYS.first(connection)
    assert row
    return str(row[0])


async def test_a_transaction_is_committed_and_returns_the_result(database: Database) -> None:
    assert await database.transact(add) == "a"
    assert await KEYS.rows(database) == [("a",)]


async def test_work_runs_off_the_event_loop(database: Database) -> None:
    async def thread(_connection: Changes) -> int:
        return threading.get_ident()

    assert await database.transact(thread) != threading.get_ident()


async def test_an_error_rolls_everything_back(database: Database) -> None:
    async def fail(connection: Changes) -> None:
        await add(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.transact(fail)
    assert await KEYS.rows(database) == []
    assert await database.transact(add) == "a"


async def test_errors_of_statements_are_raised_as_sqlalchemy_raises_them(database: Database) -> None:
    async def wrong(connection: Changes) -> None:
        await run_many(
            connection, DialectSql("INSERT INTO nowhere VALUES (?)", "INSERT INTO nowhere VALUES ($1)"), [(1,)]
        )

    with pytest.raises(OperationalError, match="no such table"):
        await database.transact(wrong)


async def test_awaiting_anything_but_statements_is_an_error(database: Database) -> None:
    async def wait(connection: Changes) -> None:
        await add(connection)
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="something other than its statements"):
        await database.transact(wait)
    assert await KEYS.rows(database) == []


async def test_a_cancelled_transaction_is_rolled_back_before_the_next_begins(database: Database) -> None:
    loop, started, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    async def slow(connection: Changes) -> None:
        await add(connection)
        loop.call_soon_threadsafe(started.set)
        go_on.wait()

    task = asyncio.create_task(database.transact(slow))
    await started.wait()
    task.cancel()
    following = asyncio.create_task(database.transact(add))
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await following == "a"
    assert await KEYS.rows(database) == [("a",)]


@pytest.mark.parametrize("fails", [False, True])
async def test_nobody_misses_the_error_of_a_cancelled_transaction(database: Database, *, fails: bool) -> None:
    """The event loop logs errors that were not retrieved."""
    loop, started, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    missed: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: missed.append(context))

    async def slow(connection: Changes) -> None:
        await add(connection)
        loop.call_soon_threadsafe(started.set)
        go_on.wait()
        if fails:
            raise ZeroDivisionError

    task = asyncio.create_task(database.transact(slow))
    await started.wait()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait([task])
    del task
    await database.transact(add)  # the thread forgets the job before
    gc.collect()
    assert missed == []


async def test_both_kinds_of_writers_take_turns(database: Database) -> None:
    async def increment(number: int) -> None:
        if number % 2:
            await database.transact(lambda connection: ADD.rows(connection, key=f"{number:02}"))
            return
        async with database.write() as connection:
            await ADD.rows(connection, key=f"{number:02}")
            await asyncio.sleep(0)

    await asyncio.gather(*map(increment, range(20)))
    assert await KEYS.rows(database) == [(f"{number:02}",) for number in range(20)]


async def test_in_memory_databases_support_transactions() -> None:
    database = SqliteDatabase(None)
    async with database.write() as connection:
        await connection.run_sync(app_state.create)
    assert await database.transact(add) == "a"
    assert await KEYS.rows(database) == [("a",)]
    await database.close()
