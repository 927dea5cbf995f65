"""Reading what is due does not read the other deliveries: by the plans of both databases, with many deliveries."""

import pytest
from sqlalchemy import insert

from invokeclone.kit.sql.database import Database
from invokeclone.kit.times import after
from invokeclone.tables import webhook_deliveries
from invokeclone.webhooks import store
from tests.postgres import PostgresServer
from tests.postgres_plans import Explaining, steps
from tests.webhooks.conftest import Hooks

MANY = 5_000
INDEX = "ix_webhook_deliveries_pending"


async def add_many(hooks: Hooks) -> list[str]:
    """Add two webhooks with deliveries, most of them of the first and due; return their ids."""
    busy, other = [await hooks.add(f"https://example.com/{name}") for name in ("busy", "other")]
    shared = {"event": "batch_done", "body": "x" * 500, "created_at": after(-3600)}
    rows = [{"webhook_id": busy, "due_at": after(number - 2 * MANY)} for number in range(MANY)]
    rows += [{"webhook_id": other, "due_at": after(seconds)} for seconds in (-20, -10, 3600)]
    async with hooks.database.write() as connection:
        numbered = [shared | row | {"delivery_id": f"msg_{number}"} for number, row in enumerate(rows)]
        await connection.execute(insert(webhook_deliveries), numbered)
    return [busy, other]


async def due(database: Database, busy: list[str]) -> list[str]:
    return [delivery.delivery_id for delivery in await store.list_due(database, 32, busy_webhooks=busy)]


async def test_each_webhook_has_its_turn_whatever_others_have_pending(hooks: Hooks) -> None:
    busy, other = await add_many(hooks)
    assert await due(hooks.database, []) == ["msg_0", f"msg_{MANY}"]
    assert await due(hooks.database, [busy]) == [f"msg_{MANY}"]
    assert await due(hooks.database, [other]) == ["msg_0"]


@pytest.mark.sqlite("reads SQLite's plan of a query")
async def test_sqlite_reads_one_delivery_of_each_webhook(hooks: Hooks) -> None:
    await add_many(hooks)
    sql, values = store._DUE._compiled
    plan = [row[3] for row in await hooks.database.fetch(f"EXPLAIN QUERY PLAN {sql}", values)]
    deliveries = [step for step in plan if any(f" {name} " in step for name in ("first", "further", "queued"))]
    assert deliveries == [
        f"SCAN first USING COVERING INDEX {INDEX}",  # its first entry
        f"SEARCH further USING COVERING INDEX {INDEX} (webhook_id>?)",
        f"SEARCH queued USING INDEX {INDEX} (webhook_id=? AND due_at>? AND due_at<?)",
    ], plan
    assert [step for step in plan if "webhook_deliveries " in step] == [
        "SEARCH webhook_deliveries USING INDEX sqlite_autoindex_webhook_deliveries_1 (delivery_id=?)"
    ], plan


async def test_postgresql_reads_one_delivery_of_each_webhook(postgres: PostgresServer) -> None:
    address = postgres.new_database()
    database = Explaining(address, analyze=True)
    await add_many(Hooks(database))
    postgres.run("VACUUM ANALYZE", database=address.rpartition("/")[2].partition("?")[0])
    await store.list_due(database, 32)
    await database.close()
    (plan,) = database.plans
    scans = [step for step in steps(plan) if step.get("Relation Name") == "webhook_deliveries"]
    assert {step["Alias"]: step.get("Index Name") for step in scans} == {
        "first": INDEX,
        "further": INDEX,
        "queued": INDEX,
        "webhook_deliveries": "pk_webhook_deliveries",
    }
    assert max(step["Actual Rows"] for step in scans) <= 2, plan
