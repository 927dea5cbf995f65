"""A worker whose database fails when its item has ended: nothing else is claimed until the database has the end."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError, ProgrammingError

from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database, open_database
from invokeclone.queue import claims, leases, service, store
from invokeclone.queue.batches import Batch
from invokeclone.queue.rows import ClaimedItem, Item
from invokeclone.queue.schemas import TERMINAL
from invokeclone.worker import loop as loop_module
from invokeclone.worker.loop import Loop, Outcome
from invokeclone.worker.process import DatabaseQueue
from tests.conftest import RecordedEvents

GRAPH = {"id": "g", "nodes": {"a": {"id": "a", "type": "toy_number"}}, "edges": []}
FAILURES: dict[str, Callable[[], Exception]] = {
    "down": lambda: OperationalError("BEGIN", None, OSError("no route to host")),
    "refuses": lambda: ProgrammingError("UPDATE", None, Exception("permission denied")),
}


class Engine:
    """An engine without models."""

    def resident(self) -> list[str]:
        return []


class Runner:
    """Completes every item at once."""

    def run(self, item: ClaimedItem, canceled: threading.Event) -> Outcome:
        return Outcome("completed", ',"results":{}}')

    def interrupt(self) -> None:
        """Nothing runs for long."""


class Pulse:
    def heartbeat(self, item_id: int | None) -> None:
        """Nobody listens."""


class WorkerDatabase:
    """A worker's own connections, whose exclusive transactions fail with `errors`; claims are not exclusive."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.database = database
        self.errors: Iterator[Exception] = iter(())
        self.attempts = 0
        self._changed = asyncio.Event()
        self._transact = database.transact
        monkeypatch.setattr(database, "transact", self.transact)

    async def transact(self, work: Callable[..., Coroutine[Any, Any, Any]], *, exclusive: bool = True) -> Any:
        if exclusive:
            self.attempts += 1
            self._changed.set()
            if error := next(self.errors, None):
                raise error
        return await self._transact(work, exclusive=exclusive)

    async def until(self, attempts: int) -> None:
        async with asyncio.timeout(20):
            while self.attempts < attempts:
                self._changed.clear()
                await self._changed.wait()


class Bench:
    """A server's resources, and a worker of it with connections of its own."""

    def __init__(self, resources: Resources, events: RecordedEvents, database: WorkerDatabase) -> None:
        self.resources, self.events, self.database = resources, events, database
        worker = Resources(resources.settings, database.database, events)
        queue = DatabaseQueue(worker, "cpu", Engine(), "one")  # type: ignore[arg-type]  # the little that it needs
        self.loop = Loop(queue, Runner(), Pulse())

    async def enqueue(self) -> int:
        batch = Batch.model_validate({"graph": GRAPH, "runs": 1})
        (item_id,) = (await service.enqueue(self.resources, "default", batch)).item_ids
        self.loop.wake()
        return item_id

    async def get(self, item_id: int) -> Item:
        return await store.get(self.resources.database, "default", item_id)

    async def end(self, item_id: int) -> Item:
        async with asyncio.timeout(20):
            while (item := await self.get(item_id)).status not in TERMINAL:
                await asyncio.sleep(0.01)
        return item

    def ends(self, item_id: int) -> list[str]:
        """Return the final statuses that were reported."""
        reported = [event for event in self.events.sent if event.name == "queue_item_status_changed"]
        return [event.status for event in reported if event.item_id == item_id and event.status in TERMINAL]  # type: ignore[attr-defined]


@pytest.fixture
async def bench(
    resources: Resources, events: RecordedEvents, toys: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    monkeypatch.setattr(loop_module, "RETRY_S", (0.001, 0.002))
    monkeypatch.setattr(loop_module, "PAUSE_AFTER_ERROR_S", 0.001)
    monkeypatch.setattr(loop_module, "POLL_S", 0.01)
    database = WorkerDatabase(open_database(resources.settings), monkeypatch)
    made = Bench(resources, events, database)
    running = asyncio.create_task(made.loop.run())
    yield made
    made.loop.stop()
    async with asyncio.timeout(20):
        await running
    await database.database.close()


@pytest.mark.parametrize("kind", FAILURES)
async def test_the_end_is_stored_when_the_database_works_again(bench: Bench, kind: str) -> None:
    bench.database.errors = iter([FAILURES[kind]() for _ in range(5)])
    first, second = await bench.enqueue(), await bench.enqueue()
    ended, expected = await bench.end(first), "completed" if kind == "down" else "failed"
    assert ended.status == expected
    assert ended.error_type == (None if kind == "down" else "ProgrammingError")
    assert "permission denied" in (ended.error_message or "permission denied")
    assert (await bench.end(second)).status == "completed"
    async with asyncio.timeout(20):
        while not bench.ends(second):
            await asyncio.sleep(0.01)
    assert (bench.ends(first), bench.ends(second)) == ([expected], ["completed"])


@pytest.mark.parametrize("kind", FAILURES)
async def test_no_other_item_is_claimed_meanwhile(bench: Bench, kind: str) -> None:
    bench.database.errors = iter(FAILURES[kind], None)
    first, second = await bench.enqueue(), await bench.enqueue()
    await bench.database.until(8)
    assert (await bench.get(first)).status == "in_progress"
    assert (await bench.get(second)).status == "pending"
    bench.database.errors = iter(())
    assert (await bench.end(second)).status == "completed"


@pytest.mark.parametrize("kind", FAILURES)
async def test_an_item_that_was_canceled_meanwhile_stays_so(bench: Bench, kind: str) -> None:
    bench.database.errors = iter(FAILURES[kind], None)
    first, second = await bench.enqueue(), await bench.enqueue()
    await bench.database.until(4)
    await service.cancel(bench.resources, "default", first)
    bench.loop.cancel(first)
    bench.database.errors = iter(())
    assert (await bench.end(second)).status == "completed"
    assert bench.ends(first) == ["canceled"]


@pytest.mark.parametrize("kind", FAILURES)
async def test_a_result_is_dropped_when_its_lease_was_lost_meanwhile(bench: Bench, kind: str) -> None:
    bench.database.errors = iter(FAILURES[kind], None)
    first = await bench.enqueue()
    await bench.database.until(4)
    assert await leases.interrupt(bench.resources, "one", "it was cut off") == [first]
    other = await claims.claim(bench.resources, "cpu", worker_id="two")
    assert other
    second = await bench.enqueue()
    bench.database.errors = iter(())
    assert (await bench.end(second)).status == "completed"
    assert (await bench.get(first)).status == "in_progress"
    assert await claims.finish(bench.resources, first, "completed", fence=other.fence)
    assert bench.ends(first) == ["completed"]
