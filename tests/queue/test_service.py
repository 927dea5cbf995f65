"""What clients do with batches and items, and the events that tell of everything, in their order."""

import asyncio
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import update

from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database, open_database
from invokeclone.queue import claims, counts, processor, service, store
from invokeclone.queue.batches import Batch
from invokeclone.queue.bulk import ItemFilter
from invokeclone.queue.calls import chain
from invokeclone.queue.events import QueueItemStatusChangedEvent
from invokeclone.tables import session_queue
from invokeclone.users import rights
from invokeclone.users.current import SYSTEM, User
from tests.queue.items import read, statuses, take

ALL = ItemFilter(queue_id="default")
ALICE, BOB = User(user_id="alice"), User(user_id="bob")
ITEM_KEYS = ["timestamp", "queue_id", "item_id", "batch_id", "origin", "destination", "user_id"]


class TestEvents:
    async def test_item_lifecycle_events(self, resources: Resources, add: Any, events: Any) -> None:
        (item_id,) = await add(batch_id="b", origin="o", destination="d")
        await take(resources)
        await claims.finish(resources, item_id, "completed", session_json=',"results":{}}')
        names = ["batch_enqueued", "queue_item_status_changed", "queue_item_status_changed"]
        assert events.names() == names
        enqueued, started, completed = (event.model_dump() for event in events.sent)
        enqueued.pop("timestamp")
        assert enqueued == {
            "queue_id": "default", "batch_id": "b", "enqueued": 1, "requested": 1, "priority": 0, "origin": "o",
            "user_id": "system",
        }  # fmt: skip
        assert list(started) == [
            *ITEM_KEYS, "status", "status_sequence", "error_type", "error_message", "error_traceback", "created_at",
            "updated_at", "started_at", "completed_at", "batch_status", "queue_status", "session_id",
        ]  # fmt: skip
        assert (started["status"], started["status_sequence"]) == ("in_progress", 1)
        assert started["batch_status"] == {
            "queue_id": "default", "batch_id": "b", "origin": "o", "destination": "d", "pending": 0, "in_progress": 1,
            "waiting": 0, "completed": 0, "failed": 0, "canceled": 0, "total": 1,
        }  # fmt: skip
        assert started["queue_status"] == {
            "queue_id": "default", "item_id": item_id, "batch_id": "b", "session_id": started["session_id"],
            "pending": 0, "in_progress": 1, "waiting": 0, "completed": 0, "failed": 0, "canceled": 0, "total": 1,
            "user_pending": 0, "user_in_progress": 1,
        }  # fmt: skip
        assert (completed["status"], completed["status_sequence"], completed["started_at"]) == (
            "completed", 2, started["started_at"],
        )  # fmt: skip
        assert completed["queue_status"]["item_id"] is None
        assert completed["batch_status"]["completed"] == 1

    async def test_failure_event_contains_the_error(self, resources: Resources, add: Any, events: Any) -> None:
        (item_id,) = await add()
        await take(resources)
        await claims.finish(resources, item_id, "failed", error=("ValueError", "no", "trace"))
        event = events.sent[-1]
        assert (event.status, event.error_type, event.error_message, event.error_traceback) == (
            "failed", "ValueError", "no", "trace",
        )  # fmt: skip

    async def test_canceling_one_item_emits_one_status_event(self, resources: Resources, add: Any, events: Any) -> None:
        first, _ = await add(runs=2)
        await service.cancel(resources, "default", first)
        await service.cancel(resources, "default", first)
        assert events.names() == ["batch_enqueued", "queue_item_status_changed"]
        assert (events.sent[-1].item_id, events.sent[-1].queue_status.pending) == (first, 1)

    async def test_canceling_many_items_emits_one_event_for_pending_items(
        self, resources: Resources, add: Any, events: Any
    ) -> None:
        running, *waiting = await add(runs=3, batch_id="b")
        await take(resources)
        events.sent.clear()
        assert await service.cancel_many(resources, ItemFilter(queue_id="default", batch_ids=["b"])) == 3
        assert events.names() == ["queue_items_canceled", "queue_item_status_changed"]
        bulk, single = events.sent
        assert bulk.model_dump(exclude={"timestamp"}) == {
            "queue_id": "default", "canceled_item_ids": waiting, "user_ids": ["system"],
            "canceled_item_ids_by_user": {"system": waiting},
        }  # fmt: skip
        assert (single.item_id, single.status) == (running, "canceled")

    async def test_canceling_nothing_emits_no_event(self, resources: Resources, events: Any) -> None:
        assert await service.cancel_many(resources, ALL) == 0
        assert await service.cancel_idle(resources, ALL) == 0
        assert await service.delete_idle(resources, ALL) == 0
        assert events.sent == []

    async def test_canceling_and_deleting_pending_items(self, resources: Resources, add: Any, events: Any) -> None:
        waiting = await add(runs=2)
        events.sent.clear()
        await service.cancel_idle(resources, ALL)
        added = await add()
        await service.delete_idle(resources, ALL)
        assert events.names() == ["queue_items_canceled", "batch_enqueued", "queue_items_canceled"]
        assert [events.sent[0].canceled_item_ids, events.sent[2].canceled_item_ids] == [waiting, added]

    async def test_deleting_an_active_item_cancels_it(self, resources: Resources, add: Any, events: Any) -> None:
        first, second = await add(runs=2)
        await take(resources)
        events.sent.clear()
        await service.delete(resources, "default", first)
        await service.delete(resources, "default", second)
        changes = [(event.name, event.item_id, event.status) for event in events.sent]
        assert changes == [("queue_item_status_changed", item_id, "canceled") for item_id in (first, second)]

    async def test_deleting_a_finished_item_emits_no_event(self, resources: Resources, add: Any, events: Any) -> None:
        (item_id,) = await add()
        await service.cancel(resources, "default", item_id)
        events.sent.clear()
        await service.delete(resources, "default", item_id)
        assert events.sent == []

    async def test_deleting_a_destination(self, resources: Resources, add: Any, events: Any) -> None:
        running, *waiting = await add(runs=3, destination="d")
        await take(resources)
        events.sent.clear()
        await service.delete_many(resources, ItemFilter(queue_id="default", destination="d"))
        assert events.names() == ["queue_item_status_changed", "queue_items_canceled"]
        assert (events.sent[0].item_id, events.sent[1].canceled_item_ids) == (running, waiting)

    async def test_clearing_cancels_running_items_first(self, resources: Resources, add: Any, events: Any) -> None:
        running, waiting = await add(runs=2)
        await take(resources)
        events.sent.clear()
        assert await service.clear(resources, ALL) == 2
        assert events.names() == ["queue_item_status_changed", "items_cleared", "queue_cleared"]
        assert (events.sent[0].item_id, events.sent[0].status) == (running, "canceled")
        assert events.sent[2].model_dump(exclude={"timestamp"}) == {"queue_id": "default", "user_id": None}
        (newer,) = await add()
        assert (waiting, newer > waiting) == (events.sent[1].last_item_id, True)

    async def test_pruning_and_pausing_emit_no_events(self, resources: Resources, add: Any, events: Any) -> None:
        await add()
        await service.cancel_idle(resources, ALL)
        events.sent.clear()
        assert await service.prune(resources, ALL) == 1
        await processor.pause(resources)
        assert events.sent == []

    async def test_resuming_emits_an_internal_event_only(self, resources: Resources, events: Any) -> None:
        await processor.resume(resources)
        assert [(event.name, event.audience) for event in events.sent] == [("processor_resumed", "internal")]

    async def test_retrying(self, resources: Resources, add: Any, events: Any) -> None:
        ids = await add(runs=2)
        await service.cancel_idle(resources, ALL)
        events.sent.clear()
        await service.retry(resources, "default", [*ids, 99])
        assert events.names() == ["queue_items_retried"]
        assert events.sent[0].model_dump(exclude={"timestamp"}) == {
            "queue_id": "default", "retried_item_ids": ids, "user_ids": ["system"],
            "retried_item_ids_by_user": {"system": ids},
        }  # fmt: skip
        events.sent.clear()
        await service.retry(resources, "default", [99])
        assert events.sent == []

    async def test_events_are_emitted_after_the_commit(self, settings: Any, database: Database, make: Any) -> None:
        row_counts: list[int] = []

        async def count() -> int:
            other = open_database(settings)
            ((number,),) = await other.fetch("SELECT count(*) FROM session_queue", ())
            await other.close()
            return int(number)

        class Reader:
            def emit(self, event: Any) -> None:
                with ThreadPoolExecutor(1) as pool:
                    row_counts.append(pool.submit(asyncio.run, count()).result())

        batch = Batch.model_validate(make.batch(runs=2))
        await service.enqueue(Resources(settings, database, Reader()), "default", batch)
        assert row_counts == [2]


class TestRedaction:
    async def test_redacted_event_shows_only_that_something_changed(
        self, resources: Resources, add: Any, events: Any
    ) -> None:
        (item_id,) = await add(batch_id="b", origin="o", destination="d", user=ALICE)
        await take(resources)
        await claims.finish(resources, item_id, "failed", error=("ValueError", "no", "trace"))
        enqueued, started, failed = (event.redact().model_dump() for event in events.sent)
        assert (enqueued["user_id"], enqueued["batch_id"], enqueued["origin"]) == ("redacted", "redacted", None)
        for event in (started, failed):
            assert (event["item_id"], event["user_id"]) == (item_id, "redacted")
            assert (event["batch_id"], event["session_id"], event["origin"]) == ("redacted", "redacted", None)
            assert event["error_message"] is None
            assert event["batch_status"]["batch_id"] == "redacted"
            assert event["batch_status"]["destination"] is None
            assert (event["queue_status"]["item_id"], event["queue_status"]["user_pending"]) == (None, None)
        assert (started["status"], failed["status"], failed["queue_status"]["failed"]) == ("in_progress", "failed", 1)

    async def test_lists_of_ids_are_emptied(self, resources: Resources, add: Any, events: Any) -> None:
        ids = await add(user=ALICE)
        await service.cancel_idle(resources, ALL)
        await service.retry(resources, "default", ids)
        await service.clear(resources, ItemFilter(queue_id="default", owner="alice"))
        assert events.names()[1:] == ["queue_items_canceled", "queue_items_retried", "items_cleared", "queue_cleared"]
        sent = (event for event in events.sent[1:] if event.audience == "queue")
        canceled, retried, cleared = (event.redact().model_dump(exclude={"timestamp"}) for event in sent)
        assert (canceled["canceled_item_ids"], canceled["user_ids"], canceled["canceled_item_ids_by_user"]) == (
            [],
            [],
            {},
        )
        assert (retried["retried_item_ids"], retried["user_ids"], retried["retried_item_ids_by_user"]) == ([], [], {})
        assert cleared == {"queue_id": "default", "user_id": "redacted"}


class TestOwners:
    async def test_other_users_items_cannot_be_changed(self, resources: Resources, add: Any) -> None:
        (item_id,) = await add(user=ALICE)
        with pytest.raises(service.NotYourQueueItem):
            await service.cancel(resources, "default", item_id, user=BOB)
        with pytest.raises(service.NotYourQueueItem):
            await service.delete(resources, "default", item_id, user=BOB)
        await service.cancel(resources, "default", item_id, user=ALICE)
        with pytest.raises(service.NotYourQueueItem):
            await service.retry(resources, "default", [item_id], user=BOB)
        assert await statuses(resources) == ["canceled"]

    async def test_bulk_actions_affect_only_own_items(self, resources: Resources, add: Any) -> None:
        await add(user=ALICE, runs=2)
        await add(user=BOB)
        assert await service.cancel_idle(resources, ItemFilter(queue_id="default", owner=rights.scope(BOB))) == 1
        assert await statuses(resources) == ["pending", "pending", "canceled"]
        assert rights.scope(SYSTEM) is None

    async def test_pausing_is_for_admins(self, resources: Resources) -> None:
        with pytest.raises(processor.AdminOnly):
            await processor.pause(resources, user=ALICE)
        assert (await processor.processor_status(resources)).is_started

    async def test_own_items_are_counted_separately(self, resources: Resources, add: Any) -> None:
        await add(user=ALICE, runs=2, batch_id="b", destination="d")
        await add(user=BOB, batch_id="b", destination="d")
        alices_status = (await processor.status(resources, "default", user=ALICE)).queue
        assert (alices_status.pending, alices_status.user_pending, alices_status.user_in_progress) == (3, 2, 0)
        async with resources.database.read() as connection:
            assert (await counts.of_batch(connection, "default", "b", "alice")).total == 2
            assert (await counts.of_destination(connection, "default", "d", "bob")).total == 1
            assert (await counts.of_queue(connection, "default")).queue.user_pending is None


async def test_items_outside_a_workflow_call_are_not_settled(resources: Resources, add: Any, monkeypatch: Any) -> None:
    async def settle(_connection: Any) -> Any:
        raise AssertionError("there is no call")

    monkeypatch.setattr(chain, "settle", settle)
    await add(runs=2)
    item = await claims.claim(resources, "cpu")
    assert item
    finished = await claims.finish(resources, item.item_id, "completed")
    assert finished
    assert not finished.in_call, "SQLite 3.40 says of a null in RETURNING that it IS NOT NULL"
    await service.cancel(resources, "default", item.item_id + 1)


def test_a_status_event_is_frozen() -> None:
    assert QueueItemStatusChangedEvent.model_config["frozen"]


COUNTED = (
    "SELECT status, sum(number) FROM queue_counts WHERE scope = 'queue' GROUP BY 1 HAVING sum(number) <> 0 ORDER BY 1"
)
COUNT = "SELECT status, count(*) FROM session_queue GROUP BY 1 ORDER BY 1"


class TestStorage:
    async def rows(self, resources: Resources, statement: str) -> list[Any]:
        return await resources.database.fetch(statement, {})

    async def test_the_graph_of_a_batch_is_stored_once(self, resources: Resources, add: Any, make: Any) -> None:
        text = "x" * 200_000
        graph = make.graph(a={"text": text}, b={})
        ids = await add(graph=graph, data=[[make.datum("b", "number", *range(60))]], runs=2)
        ((stored,),) = await self.rows(
            resources,
            "SELECT (SELECT sum(length(session)) FROM session_queue) + sum(length(template)) FROM session_graphs",
        )
        assert stored < 2 * len(text)
        for number, item_id in enumerate(ids):
            nodes = (await read(resources, item_id))["session"]["graph"]["nodes"]
            assert (nodes["a"]["text"], nodes["b"]["number"]) == (text, number % 60)
        await take(resources)
        await claims.finish(resources, ids[0], "completed", session_json=',"results":{}}')
        assert (await read(resources, ids[0]))["session"]["graph"]["nodes"]["a"]["text"] == text

    async def test_batch_item_ids_match_its_rows(self, resources: Resources, make: Any) -> None:
        for runs in (1, 3, 49, 50, 51, 120):
            batch = Batch.model_validate(make.batch(runs=runs))
            result = await service.enqueue(resources, "default", batch)
            async with resources.database.read() as connection:
                assert result.item_ids == await store.list_batch(connection, "default", batch.batch_id)
            assert result.enqueued == len(result.item_ids) == runs
        again = await service.enqueue(resources, "default", Batch.model_validate(make.batch(batch_id="b")))
        twice = await service.enqueue(resources, "default", Batch.model_validate(make.batch(batch_id="b")))
        assert twice.item_ids == [again.item_ids[0] + 1, again.item_ids[0]]
        assert await self.rows(resources, COUNTED) == await self.rows(resources, COUNT)

    async def test_prune_and_clear_leave_other_items(self, resources: Resources, add: Any) -> None:
        other = ItemFilter(queue_id="other")
        await add(runs=3)
        await service.cancel_many(resources, ALL)
        await add(queue="other")
        assert await service.prune(resources, other) == 0
        assert await service.prune(resources, ALL) == 3  # one by one, for the other queue's
        assert await self.rows(resources, COUNTED) == [("pending", 1)]
        await service.clear(resources, other)
        (waiting, _) = await add(runs=2)
        await service.cancel(resources, "default", waiting)
        assert await service.prune(resources, ALL) == 1  # one by one, for the other that waits
        await service.cancel_many(resources, ALL)
        assert await service.prune(resources, ALL) == 1  # all at once
        assert await add() == [waiting + 2]  # no id comes again
        assert await self.rows(resources, COUNTED) == await self.rows(resources, COUNT)
        assert await service.clear(resources, ALL) == 1
        assert await self.rows(resources, "SELECT 1 FROM session_graphs UNION ALL SELECT 1 FROM queue_counts") == []

    async def test_graph_is_deleted_with_its_last_item(self, resources: Resources, add: Any) -> None:
        first, second = await add(runs=2)
        await add()
        await service.cancel(resources, "default", first)
        await service.retry(resources, "default", [first])
        counted = "SELECT count(*) FROM session_graphs"
        for left, item_id in ((2, first), (2, second), (1, second + 2)):
            await service.delete(resources, "default", item_id)
            assert await self.rows(resources, counted) == [(left,)]
        await service.clear(resources, ALL)
        assert await self.rows(resources, counted) == [(0,)]

    async def test_retry_shares_the_graph_and_gets_a_new_session(
        self, resources: Resources, add: Any, make: Any
    ) -> None:
        (item_id,) = await add(data=[[make.datum("a", "number", 7)]])
        await service.cancel(resources, "default", item_id)
        await service.retry(resources, "default", [item_id])
        before, after = [(await read(resources, row_id))["session"] for row_id in (item_id, item_id + 1)]
        assert before["graph"] == after["graph"]
        assert before["id"] != after["id"]
        assert before["execution_graph"]["id"] != after["execution_graph"]["id"]

    async def test_sessions_stored_whole_by_earlier_versions_can_run(self, resources: Resources, add: Any) -> None:
        (item_id,) = await add()
        async with resources.database.read() as connection:
            session = await store.get_session(connection, item_id)
        async with resources.database.write() as connection:
            values = {"session": session, "graph_id": None, "graph_values": None}
            await connection.execute(update(session_queue).values(values))
        claimed = await claims.claim(resources, "cpu")
        assert claimed
        assert claimed.session == session
        await claims.finish(resources, item_id, "failed", session_json=',"errors":{"a":"b"}}')
        row = await read(resources, item_id)
        assert row["session"]["errors"] == {"a": "b"}
        assert row["session"]["graph"] == json.loads(session or "")["graph"]
        await service.retry(resources, "default", [item_id])
        again = await read(resources, item_id + 1)
        assert again["session"]["graph"] == row["session"]["graph"]
        assert again["session"]["id"] == again["session_id"]

    @pytest.mark.sqlite("PostgreSQL compresses long texts itself")
    async def test_finished_sessions_are_compressed_and_read_back_unchanged(
        self, resources: Resources, add: Any
    ) -> None:
        (item_id,) = await add()
        rest = f',"errors":{{}},"results":{{"é":{json.dumps(["a result"] * 100)}}}}}'
        await claims.finish(resources, item_id, "completed", session_json=rest)
        row = await read(resources, item_id)
        assert row["session"]["results"] == {"é": ["a result"] * 100}
        ((kind, size),) = await self.rows(resources, "SELECT typeof(session), length(session) FROM session_queue")
        assert kind == "blob"
        assert size < len(rest) / 10

    @pytest.mark.parametrize(
        ("stored", "execution_graph"),
        [
            ("the-id-of-it", {"id": "the-id-of-it", "nodes": {}, "edges": []}),
            (',"execution_graph":{"id":"x"}}', {"id": "x"}),
        ],
    )
    async def test_partial_sessions_of_earlier_versions_can_be_read(
        self, resources: Resources, add: Any, stored: str, execution_graph: dict[str, Any]
    ) -> None:
        (item_id,) = await add()
        async with resources.database.write() as connection:
            await connection.execute(update(session_queue).values(session=stored))
        assert (await read(resources, item_id))["session"]["execution_graph"] == execution_graph

    async def test_counts_always_match_the_rows(self, resources: Resources, add: Any) -> None:
        await add(runs=5, destination="d", user=ALICE)
        await add(runs=3, user=BOB)
        await take(resources)
        item_id = await take(resources)
        assert item_id is not None
        await claims.finish(resources, item_id, "completed")
        await add(runs=150, destination="d", user=BOB)
        await service.cancel_many(resources, ItemFilter(queue_id="default", owner="bob"))
        await service.retry(resources, "default", [item_id + 3, item_id + 4])
        await service.prune(resources, ItemFilter(queue_id="default", owner="bob"))
        for scope, name in (("queue", "''"), ("batch", "batch_id"), ("destination", "coalesce(destination, '')")):
            counted = await self.rows(
                resources,
                f"SELECT queue_id, name, user_id, status, sum(number) FROM queue_counts WHERE scope = '{scope}' "
                "GROUP BY 1, 2, 3, 4 HAVING sum(number) <> 0 ORDER BY 1, 2, 3, 4",
            )
            assert counted == await self.rows(
                resources,
                f"SELECT queue_id, {name}, user_id, status, count(*) FROM session_queue GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
            )


class TestLog:
    async def test_item_status_changes_are_logged(
        self, resources: Resources, add: Any, logged: list[logging.LogRecord]
    ) -> None:
        (item_id,) = await add(batch_id="b", user=ALICE)
        await take(resources)
        await claims.fail_orphans(resources, "cpu", "it died")
        fields = ("action", "queue_id", "batch_id", "item_id", "user_id", "status", "enqueued")
        entries = [tuple(vars(record).get(name) for name in fields) for record in logged]
        changed = ("queue_item_status_changed", "default", "b", item_id, "alice")
        assert entries == [
            ("batch_enqueued", "default", "b", None, "alice", None, 1),
            (*changed, "in_progress", None),
            (*changed, "failed", None),
        ]
        assert [record.levelname for record in logged] == ["DEBUG", "DEBUG", "INFO"]
        assert logged[-1].getMessage() == f"item {item_id} is failed: WorkerDied: it died"
