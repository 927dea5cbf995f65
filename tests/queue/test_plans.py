"""Lists, counts and the claim are served by indexes: SQLite itself says how it would go about them."""

from typing import Any

import pytest
from sqlalchemy import event

from invokeclone.kit.resources import Resources
from invokeclone.queue import counts, service, store
from invokeclone.queue.batches import Batch
from invokeclone.queue.store import Chosen

READS: dict[str, Any] = {
    "list_all": lambda c: store.list_json(c, "default"),
    "list_all of a destination": lambda c: store.list_json(c, "default", "d"),
    "item_ids": lambda c: store.list_ids(c, "default"),
    "current": lambda c: store.current_json(c, "default"),
    "next": lambda c: store.next_json(c, "default"),
    "items_by_ids": lambda c: store.get_many_json(c, "default", [1, 2]),
    "summaries": lambda c: store.get_summaries_json(c, "default", [1, 2]),
    "status": lambda c: counts.of_queue(c, "default", "system"),
    "batch status": lambda c: counts.of_batch(c, "default", "b"),
    "counts by destination": lambda c: counts.of_destination(c, "default", "d"),
    "processor": counts.of_processor,
    "batch ids": lambda c: store.list_batch(c, "default", "b"),
    "pending": lambda c: store.count_pending(c, "default"),
    "priority": lambda c: store.highest_priority(c, "default"),
    "running": lambda c: store.list_running(c, device="cpu"),
}
WRITES: dict[str, Any] = {
    "claim": lambda c: store.claim(c, "cpu"),
    "cancel one": lambda c: store.set_status(c, 1, "canceled"),
    "cancel idle": lambda c: store.cancel_idle(c, Chosen(queue_id="default")),
    "cancel a batch": lambda c: store.cancel_idle(c, Chosen(queue_id="default", batch_ids=["b"])),
    "cancel a destination": lambda c: store.cancel_idle(c, Chosen(queue_id="default", destination="d")),
    "prune": lambda c: store.delete_many(c, Chosen(queue_id="default"), ("completed",)),
}
SORTED = {"list_all", "item_ids", "next", "claim"}
"""What comes out of an index already in order."""


@pytest.mark.parametrize("name", [*READS, *WRITES])
async def test_an_index_serves_it(name: str, resources: Resources, make: Any) -> None:
    batch = Batch.model_validate(make.batch(runs=20, batch_id="b", destination="d"))
    await service.enqueue(resources, "default", batch)
    statements: list[tuple[str, Any]] = []
    async with resources.database.write() as connection:
        sync = connection.sync_connection
        assert sync

        def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
            statements.append((statement, parameters))

        event.listen(sync, "before_cursor_execute", note)
        await (READS | WRITES)[name](connection)
        event.remove(sync, "before_cursor_execute", note)
        plan = []
        for statement, parameters in statements:
            rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plan += [row[3] for row in rows]
    assert plan
    scans = [step for step in plan if step.startswith("SCAN") and "VIRTUAL TABLE" not in step and "USING" not in step]
    assert [step for step in scans if "session_queue" in step or "candidates" in step] == [], plan
    if name in SORTED:
        assert [step for step in plan if "TEMP B-TREE FOR ORDER BY" in step] == [], plan
