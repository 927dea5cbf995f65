"""PostgreSQL under concurrency: claims, exclusive transactions, lost connections, a restart of the server."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import func, insert, literal, select, update
from sqlalchemy.exc import DBAPIError

from invokeclone.graph.session.graph import Graph
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files.storage_errors import to_storage_error
from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql import postgres_database
from invokeclone.kit.sql.database import Database
from invokeclone.kit.sql.postgres_database import PostgresDatabase
from invokeclone.kit.sql.prepared_statements import PreparedStatement, parameter
from invokeclone.kit.sql.transactions import Changes
from invokeclone.kit.workers import Workers
from invokeclone.queue import bulk_counts, claims, counts, service, store
from invokeclone.queue.api import router
from invokeclone.queue.batches import Batch
from invokeclone.queue.bulk import ItemFilter
from invokeclone.server.http import bodies, errors, storage_errors
from invokeclone.tables import app_state, queue_counts, session_queue
from tests.applications import RunningWorkers
from tests.conformance.cases import Silent
from tests.postgres import PostgresServer

CLAIMERS = 16
ITEMS = 300
COUNTED = ("queue_id", "user_id", "status")


@pytest.fixture
async def another(postgres: PostgresServer) -> AsyncIterator[Callable[[], PostgresDatabase]]:
    """Open databases of the same address, as other processes would; they are closed in the end."""
    opened: list[PostgresDatabase] = []
    address = postgres.clean_database()

    def open_one() -> PostgresDatabase:
        opened.append(PostgresDatabase(address))
        return opened[-1]

    yield open_one
    for database in opened:
        await database.close()


@pytest.fixture
def resources(another: Any, tmp_path: Any) -> Callable[[], Resources]:
    settings = Settings(root=tmp_path, device="cpu", log_format="plain")
    return lambda: Resources(settings, another(), Silent())


def batch(runs: int, **fields: Any) -> Batch:
    return Batch.model_validate({"graph": Graph(id="g").model_dump(), "runs": runs, **fields})


async def check_counts(database: Database) -> None:
    """Raise AssertionError unless the sums of the counts equal the numbers of rows."""
    summed = func.sum(queue_counts.c.number)
    columns = [queue_counts.c[name] for name in COUNTED]
    counted = select(*columns, summed).where(queue_counts.c.scope == "queue").group_by(*columns).having(summed != 0)
    rows = [session_queue.c[name] for name in COUNTED]
    async with database.read() as connection:
        of_counts = {tuple(row) for row in await connection.execute(counted)}
        of_rows = {tuple(row) for row in await connection.execute(select(*rows, func.count()).group_by(*rows))}
    assert of_counts == of_rows


@pytest.mark.parametrize("resident", [(), ("77",)])  # an eighth of the sessions have these digits in their id
async def test_each_item_is_claimed_once_while_others_change_the_queue(
    resources: Callable[[], Resources], resident: tuple[str, ...]
) -> None:
    own = resources()
    await service.enqueue(own, "default", batch(ITEMS, batch_id="b"))
    claimed: list[tuple[int, int]] = []
    is_over = asyncio.Event()

    async def claim(number: int) -> None:
        worker = resources()
        while (item := await claims.claim(worker, f"cuda:{number}", resident)) is not None or not is_over.is_set():
            if item is None:
                await asyncio.sleep(0.01)
                continue
            claimed.append((item.item_id, item.fence))
            if item.item_id % 3 == 0:
                await claims.finish(worker, item.item_id, "completed", fence=item.fence)

    async def change() -> None:
        server = resources()
        for number in range(12):
            result = await service.enqueue(server, "default", batch(4, batch_id=f"x{number}"), prepend=number % 2 == 0)
            first, second, *_ = result.item_ids
            await service.cancel(server, "default", first)
            await service.retry(server, "default", [first])
            await service.delete(server, "default", second)
            await service.cancel_many(server, ItemFilter(queue_id="default", batch_ids=[f"x{number - 1}"]))
            await service.prune(server, ItemFilter(queue_id="default", batch_ids=[f"x{number - 2}"]))
        is_over.set()

    await asyncio.gather(change(), *(claim(number) for number in range(CLAIMERS)))
    assert len(claimed) == len(set(claimed)), "an item was claimed twice"
    assert {fence for _, fence in claimed} == {1}
    assert set(range(1, ITEMS + 1)) <= {item_id for item_id, _ in claimed}
    await check_counts(own.database)
    status = (await counts.of_queue(own.database, "default")).queue
    assert status.pending == 0
    assert status.total >= ITEMS


async def test_the_rows_of_counts_are_summed_up_beside_claims(resources: Callable[[], Resources]) -> None:
    own, other = resources(), resources()
    await service.enqueue(own, "default", batch(60))

    async def claim() -> None:
        for _ in range(30):
            await claims.claim(other, "cpu")

    async def sum_up() -> None:
        for _ in range(10):
            await own.database.transact(lambda changes: bulk_counts.sum_up(changes, bulk_counts.ITEMS_PER_SUM))

    await asyncio.gather(claim(), sum_up())
    await check_counts(own.database)
    await sum_up()
    ((rows,),) = await own.database.fetch("SELECT count(*) FROM queue_counts", ())
    assert rows == 2 * 3  # two statuses of the queue, the batch and the destination
    await check_counts(own.database)


async def test_the_rows_of_counts_do_not_grow_with_the_queue(resources: Callable[[], Resources]) -> None:
    """Neither by batches that wait nor by items that run and end; batches that are over have one row per count."""
    own = resources()
    for _ in range(2 * bulk_counts.ITEMS_PER_SUM + 3):
        await service.enqueue(own, "default", batch(1))
    waiting = await count_rows(own, "queue")
    assert waiting <= bulk_counts.ITEMS_PER_SUM
    await check_counts(own.database)
    while (item := await claims.claim(own, "cpu")) is not None:
        await claims.finish(own, item.item_id, "completed", fence=item.fence)
    assert await count_rows(own, "queue") <= 5 * bulk_counts.ITEMS_PER_SUM
    ended = await own.database.fetch(
        "SELECT name, count(*) FROM queue_counts WHERE scope = 'batch' AND name IN (SELECT batch_id FROM session_queue "
        "WHERE item_id <= $1) GROUP BY name HAVING count(*) > 1",
        (2 * bulk_counts.ITEMS_PER_SUM,),
    )
    assert ended == []
    await check_counts(own.database)


async def count_rows(resources: Resources, scope: str) -> int:
    ((number,),) = await resources.database.fetch("SELECT count(*) FROM queue_counts WHERE scope = $1", (scope,))
    return int(number)


async def test_exclusive_transactions_are_one_at_a_time(another: Callable[[], PostgresDatabase]) -> None:
    databases = [another() for _ in range(4)]
    async with databases[0].write() as connection:
        await connection.execute(insert(app_state).values(key="n", value="0"))

    async def increment(database: PostgresDatabase, *, prepared: bool) -> None:
        for _ in range(10):
            if prepared:
                await database.transact(_increment)
                continue
            async with database.write() as connection:
                number = await connection.scalar(select(app_state.c.value).where(app_state.c.key == "n"))
                await asyncio.sleep(random.random() / 1000)
                await connection.execute(update(app_state).values(value=str(int(number or 0) + 1)))

    async def _increment(changes: Changes) -> None:
        ((number,),) = await PreparedStatement(select(app_state.c.value)).rows(changes)
        await asyncio.sleep(random.random() / 1000)
        await PreparedStatement(update(app_state).values(value=parameter("to"))).rows(changes, to=str(int(number) + 1))

    await asyncio.gather(*(increment(database, prepared=bool(n % 2)) for n, database in enumerate(databases)))
    ((number,),) = await databases[0].fetch("SELECT value FROM app_state", ())
    assert number == "40"


@pytest.mark.parametrize("prepared", [False, True])
async def test_a_client_killed_inside_a_transaction_leaves_nothing(
    another: Callable[[], PostgresDatabase], *, prepared: bool
) -> None:
    killed, other = another(), another()
    statement = "INSERT INTO app_state (key, value) VALUES ('left', '1')"

    async def kill() -> None:
        await other.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database() AND query LIKE 'INSERT INTO app_state%'",
            (),
        )

    async def work(changes: Any) -> None:
        await changes.fetch_rows(statement, ())
        await kill()
        await changes.fetch_rows("SELECT 1", ())

    with pytest.raises(DBAPIError):
        if prepared:
            await killed.transact(work)
        else:
            async with killed.write() as connection:
                await connection.exec_driver_sql(statement)
                await kill()
                await connection.exec_driver_sql("SELECT 1")
    assert await other.fetch("SELECT 1 FROM app_state", ()) == []
    async with other.write() as connection:  # the lock is free
        await connection.exec_driver_sql(statement)
    async with killed.write() as connection:  # and so is the pool
        assert await connection.scalar(select(app_state.c.value)) == "1"
    assert await killed.fetch("SELECT value FROM app_state", ()) == [("1",)]


async def test_a_restart_of_the_server_is_survived(
    another: Callable[[], PostgresDatabase], postgres: PostgresServer
) -> None:
    database = another()

    async def all_ways() -> None:
        assert await database.fetch("SELECT count(*) FROM users", ()) == [(1,)]
        async with database.read() as connection:
            assert await connection.scalar(select(func.count()).select_from(app_state)) == 0

        async def nothing(changes: Any) -> Any:
            return await changes.fetch_rows("SELECT 7", ())

        assert await database.transact(nothing) == [(7,)]
        async with database.write() as connection:
            assert await connection.scalar(select(literal(8))) == 8

    await asyncio.gather(all_ways(), all_ways(), all_ways())
    await asyncio.to_thread(postgres.shut_down)
    try:
        with pytest.raises(DBAPIError) as caught:
            await database.fetch("SELECT 1", ())
        error = to_storage_error(caught.value)
        assert error is not None
        assert error.status == 503
        with pytest.raises(DBAPIError):
            async with database.read():
                pass
        with pytest.raises(DBAPIError):
            async with database.write():
                pass
    finally:
        await asyncio.to_thread(postgres.start_again)
    await asyncio.gather(all_ways(), all_ways(), all_ways())


async def test_requests_during_a_restart_of_the_server_get_503(
    resources: Callable[[], Resources], postgres: PostgresServer
) -> None:
    app = Application()
    app.include_router(bodies.read_strictly(router))
    app.services.add(Resources, resources())
    app.services.add(Workers, RunningWorkers())
    errors.install(app)
    storage_errors.install(app)
    base = "http://test/api/v1/queue/default"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=base) as client:

        async def ask() -> list[int]:
            enqueue = client.post("/enqueue_batch", json={"batch": batch(1).model_dump(mode="json")})
            responses = await asyncio.gather(
                client.get("/status"), client.get("/item_ids"), client.put("/clear"), enqueue
            )
            return [response.status_code for response in responses]

        assert await ask() == [200] * 4
        await asyncio.to_thread(postgres.shut_down)
        try:
            assert await ask() == [503] * 4
        finally:
            await asyncio.to_thread(postgres.start_again)
        assert await ask() == [200] * 4


async def test_a_transaction_that_cannot_begin_leaves_no_broken_connection(
    another: Callable[[], PostgresDatabase], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time limit is over, or its task is canceled, while it waits for another process."""
    monkeypatch.setitem(postgres_database.SESSION_SETTINGS, "lock_timeout", "100ms")
    holder, waiting = another(), another()

    async def nothing(_connection: Changes) -> None:
        return None

    async with holder.write():
        for _ in range(postgres_database.CONNECTIONS + 1):
            with pytest.raises(DBAPIError, match="LockNotAvailable"):
                async with waiting.write():
                    pass
            with pytest.raises(DBAPIError, match="LockNotAvailable"):
                await waiting.transact(nothing)
        for begin in (waiting.write().__aenter__, lambda: waiting.transact(nothing)):
            task = asyncio.ensure_future(begin())
            await asyncio.sleep(0.03)
            task.cancel()
            with pytest.raises((asyncio.CancelledError, DBAPIError)):
                await task
    for _ in range(3):
        async with waiting.write() as connection:
            assert await connection.scalar(select(func.count()).select_from(app_state)) is not None
        await waiting.transact(nothing)
        async with waiting.read() as connection:
            assert await connection.scalar(select(func.count()).select_from(app_state)) is not None


async def test_reads_do_not_wait_for_writers_that_wait(another: Callable[[], PostgresDatabase]) -> None:
    holder, waiting = another(), another()

    async def nothing(_connection: Changes) -> None:
        return None

    async with holder.write():
        writers = [asyncio.ensure_future(waiting.transact(nothing)) for _ in range(2 * postgres_database.CONNECTIONS)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(20):
            assert await waiting.fetch("SELECT 1", ()) == [(1,)]
            async with waiting.read() as connection:
                assert await connection.scalar(select(func.count()).select_from(app_state)) is not None
        assert not any(writer.done() for writer in writers)
    await asyncio.gather(*writers)


async def test_an_item_that_is_claimed_while_others_are_canceled_is_counted_once(
    resources: Callable[[], Resources],
) -> None:
    canceling, claiming = resources(), resources()
    await service.enqueue(canceling, "default", batch(3, batch_id="b"))
    claimed, go_on = asyncio.Event(), asyncio.Event()

    async def claim(connection: Any) -> None:
        await connection.fetch_rows("BEGIN", ())
        assert await store.claim(connection, "cpu") is not None
        claimed.set()
        await go_on.wait()
        await connection.fetch_rows("COMMIT", ())

    claim_task = asyncio.ensure_future(claiming.database.transact(claim, exclusive=False))
    await claimed.wait()
    cancel_task = asyncio.ensure_future(service.cancel_many(canceling, ItemFilter(queue_id="default")))
    await asyncio.sleep(0.2)  # it waits for the row of the claimed item
    go_on.set()
    await claim_task
    await cancel_task
    status = (await counts.of_queue(canceling.database, "default")).queue
    async with canceling.database.read() as connection:
        rows = await connection.execute(select(session_queue.c.status, func.count()).group_by(session_queue.c.status))
        stored = {row[0]: row[1] for row in rows}
    assert sum(stored.values()) == status.total == 3
    assert (status.pending, status.in_progress, status.canceled) == (
        stored.get("pending", 0), stored.get("in_progress", 0), stored.get("canceled", 0),
    )  # fmt: skip
