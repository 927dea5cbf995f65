"""What workers and the server's start do with items."""

import asyncio
import json
from typing import Any

import pytest

from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database, open_database
from invokeclone.queue import claims, processor, service, store
from invokeclone.queue.schemas import SessionProcessorStatus
from invokeclone.users.current import User
from tests.queue.items import read, statuses, take

ALICE, BOB = User(user_id="alice"), User(user_id="bob")


class TestClaim:
    async def test_empty_queue_yields_no_item(self, resources: Resources, events: Any) -> None:
        assert await claims.claim(resources, "cpu") is None
        assert events.sent == []

    async def test_claimed_row_records_device_and_start_time(self, resources: Resources, add: Any, make: Any) -> None:
        (item_id,) = await add(origin="o", destination="d", data=[[make.datum("a", "number", 4)]])
        item = await claims.claim(resources, "cuda:1")
        assert item
        assert (item.item_id, item.status, item.status_sequence, item.device) == (item_id, "in_progress", 1, "cuda:1")
        assert (item.origin, item.destination, item.workflow) == ("o", "d", None)
        assert item.started_at == item.updated_at >= item.created_at
        assert json.loads(item.session)["graph"]["nodes"]["a"]["number"] == 4
        assert json.loads(item.field_values or "")[0]["value"] == 4
        assert (await read(resources, item_id))["started_at"] == item.started_at

    async def test_items_are_claimed_by_priority_then_age_across_queues(self, resources: Resources, add: Any) -> None:
        old = await add(runs=2)
        other = await add(queue="other")
        soon = await add(prepend=True, runs=2)
        taken = [await take(resources) for _ in range(6)]
        assert taken == [*soon, *old, *other, None]

    async def test_no_item_is_claimed_twice(self, resources: Resources, add: Any) -> None:
        ids = await add(runs=60)
        databases = [open_database(resources.settings) for _ in range(8)]

        async def work(database: Database, device: str) -> list[int]:
            worker_resources = Resources(resources.settings, database, resources.events)
            taken = []
            while (item := await claims.claim(worker_resources, device)) is not None:
                assert item.device == device
                taken.append(item.item_id)
            return taken

        taken = await asyncio.gather(*(work(entry, f"cuda:{number}") for number, entry in enumerate(databases)))
        for database in databases:
            await database.close()
        assert sorted(item for entry in taken for item in entry) == ids
        assert set(await statuses(resources)) == {"in_progress"}


class TestRoundRobin:
    @pytest.fixture
    def settings(self, settings: Any) -> Any:
        return settings.model_copy(update={"multiuser": True})

    async def test_users_take_turns_and_prepending_only_reorders_own_items(
        self, resources: Resources, add: Any
    ) -> None:
        alice = await add(user=ALICE, runs=3)
        bob = await add(user=BOB, runs=2)
        hurried = await add(user=ALICE, prepend=True)
        taken = []
        for _ in range(6):
            taken.append(await take(resources))
            await asyncio.sleep(0.003)  # turns are told apart by milliseconds
        assert taken == [bob[0], hurried[0], bob[1], *alice]


class TestFirstInFirstOut:
    @pytest.fixture
    def settings(self, settings: Any) -> Any:
        return settings.model_copy(update={"multiuser": True, "session_queue_mode": "FIFO"})

    async def test_claim_order_ignores_users(self, resources: Resources, add: Any) -> None:
        ids = [*await add(user=ALICE, runs=2), *await add(user=BOB), *await add(user=ALICE)]
        assert [await take(resources) for _ in range(4)] == ids


class TestFinish:
    async def test_session_is_stored_with_the_status(self, resources: Resources, add: Any) -> None:
        (item_id,) = await add()
        await take(resources)
        item = await claims.finish(resources, item_id, "completed", session_json=',"results":{"a":1}}')
        assert item
        assert (item.status, item.status_sequence) == ("completed", 2)
        row = await read(resources, item_id)
        assert row["session"]["results"] == {"a": 1}
        assert row["session"]["graph"]["nodes"]["a"]["type"] == "queue_test"
        assert row["completed_at"] == row["updated_at"] >= row["started_at"]

    async def test_failure_stores_the_error(self, resources: Resources, add: Any) -> None:
        (item_id,) = await add()
        await take(resources)
        await claims.finish(resources, item_id, "failed", error=claims.ItemError("ValueError", "no", "trace"))
        row = await read(resources, item_id)
        assert (row["error_type"], row["error_message"], row["error_traceback"]) == ("ValueError", "no", "trace")

    async def test_canceled_item_stays_canceled_and_keeps_partial_results(
        self, resources: Resources, add: Any, events: Any
    ) -> None:
        (item_id,) = await add()
        await take(resources)
        await service.cancel(resources, "default", item_id)
        events.sent.clear()
        assert await claims.finish(resources, item_id, "completed", session_json=',"results":{"far":1}}') is None
        row = await read(resources, item_id)
        assert (row["status"], row["status_sequence"], row["session"]["results"]) == ("canceled", 2, {"far": 1})
        assert events.sent == []

    async def test_finishing_a_deleted_item_is_no_error(self, resources: Resources) -> None:
        assert await claims.finish(resources, 99, "completed", session_json=',"results":{}}') is None

    async def test_is_running_is_true_only_while_the_item_runs(self, resources: Resources, add: Any) -> None:
        (item_id,) = await add()
        assert not await claims.is_running(resources, item_id)
        await take(resources)
        assert await claims.is_running(resources, item_id)
        await service.delete(resources, "default", item_id)
        assert not await claims.is_running(resources, item_id)


class TestOrphans:
    async def test_only_items_of_the_dead_worker_fail(self, resources: Resources, add: Any, events: Any) -> None:
        orphan, other, waiting = await add(runs=3)
        await claims.claim(resources, "cuda:0")
        await claims.claim(resources, "cuda:1")
        events.sent.clear()
        assert await claims.fail_orphans(resources, "cuda:0", "the worker was killed") == [orphan]
        row = await read(resources, orphan)
        assert (row["status"], row["error_type"], row["error_message"]) == (
            "failed", "WorkerDied", "the worker was killed",
        )  # fmt: skip
        assert await statuses(resources) == ["failed", "in_progress", "pending"]
        assert [(event.name, event.item_id) for event in events.sent] == [("queue_item_status_changed", orphan)]
        assert await claims.fail_orphans(resources, "cuda:0", "again") == []
        assert other < waiting


class TestRecover:
    async def test_running_items_are_canceled_and_pending_items_stay_without_events(
        self, resources: Resources, add: Any, events: Any
    ) -> None:
        completed, ran, waiting = await add(runs=3)
        await take(resources)
        await claims.finish(resources, completed, "completed")
        await take(resources)
        await processor.pause(resources)
        events.sent.clear()
        await claims.recover(resources)
        assert await statuses(resources) == ["completed", "canceled", "pending"]
        assert events.sent == []
        assert await processor.processor_status(resources) == SessionProcessorStatus(
            is_started=True, is_processing=False
        )
        assert (ran, await take(resources)) == (waiting - 1, waiting)

    async def test_the_queue_can_be_emptied_at_start(self, resources: Resources, add: Any) -> None:
        await add(runs=2)
        await add(queue="other")
        emptying = resources.settings.model_copy(update={"clear_queue_on_startup": True, "max_queue_history": 5})
        several = emptying.model_copy(update={"events_url": "redis://localhost"})
        await claims.recover(Resources(several, resources.database, resources.events))
        assert await statuses(resources) == ["pending"] * 2, "other servers may run them"
        await claims.recover(Resources(emptying, resources.database, resources.events))
        assert (await statuses(resources), await statuses(resources, "other")) == ([], ["pending"])

    @pytest.mark.parametrize(("kept", "left"), [(None, 4), (2, 2), (0, 0), (9, 4)])
    async def test_history_is_trimmed_to_its_limit(
        self, resources: Resources, add: Any, kept: int | None, left: int
    ) -> None:
        ids = await add(runs=4)
        for _ in ids:
            await claims.finish(resources, await take(resources) or 0, "completed")
        pending = await add()
        limited = resources.settings.model_copy(update={"max_queue_history": kept})
        await claims.recover(Resources(limited, resources.database, resources.events))
        async with resources.database.read() as connection:
            assert sorted(await store.list_ids(connection, "default")) == ids[4 - left :] + pending
