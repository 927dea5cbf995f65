"""Lists, counts and the claim are served by indexes: SQLite itself says how it would go about them."""

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.resources import Resources
from invokeclone.queue import bulk, capacity, counts, metrics, service, store
from invokeclone.queue.batches import Batch
from invokeclone.queue.bulk import ItemFilter
from invokeclone.queue.schemas import TERMINAL


async def _states_of_one(connection: AsyncConnection) -> None:
    await counts.of_item(connection, await store.get(connection, "default", 1))


READS: dict[str, Any] = {
    "list_all": lambda c: store.list_order(c, "default"),
    "list_all of a destination": lambda c: store.list_order(c, "default", "d"),
    "item_ids": lambda c: store.list_ids(c, "default"),
    "current": lambda c: store.current_json(c, "default"),
    "next": lambda c: store.next_json(c, "default"),
    "items_by_ids": lambda c: store.get_many_json(c, "default", [1, 2]),
    "summaries": lambda c: store.get_summaries_json(c, "default", [1, 2]),
    "status": lambda c: counts.of_queue(c, "default", "system"),
    "batch status": lambda c: counts.of_batch(c, "default", "b"),
    "counts by destination": lambda c: counts.of_destination(c, "default", "d"),
    "item's status": _states_of_one,
    "processor": counts.of_processor,
    "metrics": metrics.measure,
    "batch ids": lambda c: store.list_batch(c, "default", "b"),
    "items of batches": lambda c: store.list_of_batches(c, ["b", "c"]),
    "capacity": lambda c: capacity.measure(c, Settings(), "default", "system"),
    "running": lambda c: bulk.list_running(c, worker_id="cpu"),
    "roots": lambda c: store.list_roots(c, [1, 2]),
    "chain": lambda c: store.list_chain(c, 1),
}
WRITES: dict[str, Any] = {
    "claim": lambda c: store.claim(c, "cpu"),
    "claim in turn": lambda c: store.claim(c, "cpu", round_robin=True),
    "claim with models": lambda c: store.claim(c, "cpu", resident=["key"]),
    "claim in turn with models": lambda c: store.claim(c, "cpu", round_robin=True, resident=["key"]),
    "cancel one": lambda c: store.set_status(c, 1, "canceled"),
    "cancel idle": lambda c: bulk.cancel_idle(c, ItemFilter(queue_id="default")),
    "cancel a batch": lambda c: bulk.cancel_idle(c, ItemFilter(queue_id="default", batch_ids=["b"])),
    "cancel a destination": lambda c: bulk.cancel_idle(c, ItemFilter(queue_id="default", destination="d")),
    "prune": lambda c: bulk.delete_many(c, ItemFilter(queue_id="default"), ("completed",)),
    "prune all": lambda c: bulk.empty(c, ItemFilter(queue_id="default"), TERMINAL),
    "delete some": lambda c: bulk.delete_items(c, "default", [1, 2]),
}
SORTED = {"item_ids", "next", "claim", "claim with models"}
"""What comes out of an index already in order."""


@pytest.mark.sqlite("reads SQLite's plan of a query")
@pytest.mark.parametrize("name", [*READS, *WRITES])
async def test_every_query_uses_an_index(name: str, resources: Resources, make: Any) -> None:
    batch = Batch.model_validate(make.batch(runs=20, batch_id="b", destination="d"))
    await service.enqueue(resources, "default", batch)
    statements: list[str] = []
    async with resources.database.write() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.set_trace_callback(statements.append)
        await (READS | WRITES)[name](connection)
        await driver.set_trace_callback(None)
        plan = []
        for statement in statements:
            plan += [row[3] for row in await driver.execute_fetchall(f"EXPLAIN QUERY PLAN {statement}")]
    assert plan
    scans = [step for step in plan if step.startswith("SCAN") and "VIRTUAL TABLE" not in step and "USING" not in step]
    assert [step for step in scans if "session_queue" in step or "candidates" in step] == [], plan
    if name in SORTED:
        assert [step for step in plan if "TEMP B-TREE FOR ORDER BY" in step] == [], plan
    if "in turn" in name:
        for table in ("first", "further", "candidates"):
            steps = [step for step in plan if step.startswith(f"SEARCH {table} ")]
            assert steps, plan
            assert all("USING COVERING INDEX ix_session_queue_pending" in step for step in steps), plan
