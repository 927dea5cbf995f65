"""The connection to PostgreSQL is cut after a statement was executed and before its answer arrived."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
from sqlalchemy import insert
from sqlalchemy.exc import OperationalError

from invokeclone.graph.session.call_frames import WorkflowCallExecution
from invokeclone.graph.session.execution import GraphExecutionState
from invokeclone.kit.files.storage_errors import to_storage_error
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import open_database
from invokeclone.kit.sql.transactions import CommitUnknown
from invokeclone.kit.times import now
from invokeclone.queue import claims, counts, leases, service, store
from invokeclone.queue.batches import Batch
from invokeclone.queue.calls import chain
from invokeclone.tables import session_queue
from tests.postgres import PostgresServer

Cut = Callable[..., None]


@pytest.fixture
async def server(postgres: PostgresServer, settings: Any, events: Any) -> AsyncIterator[Resources]:
    settings = settings.model_copy(update={"database_url": postgres.clean_database()})
    opened = Resources(settings, open_database(settings), events)
    yield opened
    await opened.database.close()


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Cut:
    """Cut the connection after the next statement that contains a text, or some of them."""
    pending: list[str] = []

    def patch(method: str) -> None:
        original = getattr(asyncpg.Connection, method)

        async def run(connection: Any, sql: str, *arguments: Any, **options: Any) -> Any:
            result = await original(connection, sql, *arguments, **options)
            if pending and pending[0] in sql:
                pending.pop(0)
                connection.terminate()
                raise asyncpg.exceptions.ConnectionDoesNotExistError("connection was closed in the middle of operation")
            return result

        monkeypatch.setattr(asyncpg.Connection, method, run)

    for method in ("execute", "fetch"):
        patch(method)

    def act(*texts: str) -> None:
        pending[:] = texts

    return act


def names(events: Any) -> list[tuple[str, str | None]]:
    return [(event.name, getattr(event, "status", None)) for event in events.sent]


@pytest.fixture
def batch(make: Any) -> Batch:
    return Batch.model_validate(make.batch())


@pytest.mark.parametrize("lost_reads", [(), ("",)])  # the question whether it is stored fails, too
@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_a_result_whose_answer_is_lost_is_reported_once(
    server: Resources, batch: Batch, events: Any, cut: Cut, status: Any, lost_reads: tuple[str, ...]
) -> None:
    await service.enqueue(server, "default", batch)
    item = await claims.claim(server, "cpu")
    assert item
    events.sent.clear()
    error = ("E", "message", "trace") if status == "failed" else None
    rest = ',"results":{}}'

    async def finish() -> Any:
        return await claims.finish(server, item.item_id, status, session_json=rest, error=error, fence=item.fence)

    cut("COMMIT", *lost_reads)
    if lost_reads:
        with pytest.raises(OperationalError):
            await finish()
        assert names(events) == []
    ended = await finish()
    assert ended
    assert (ended.status, ended.error_message) == (status, error and error[1])
    assert names(events) == [("queue_item_status_changed", status)]
    assert (await counts.of_queue(server.database, "default")).queue.total == 1


async def test_an_item_that_a_user_canceled_is_not_reported_by_its_worker(
    server: Resources, batch: Batch, events: Any
) -> None:
    await service.enqueue(server, "default", batch)
    item = await claims.claim(server, "cpu")
    assert item
    await service.cancel(server, "default", item.item_id)
    events.sent.clear()
    for status in ("completed", "canceled"):
        assert await claims.finish(server, item.item_id, status, fence=item.fence) is None  # type: ignore[arg-type]
    assert names(events) == []


@pytest.mark.parametrize("statement", ["UPDATE session_queue", "queue_counts"])
async def test_a_claim_whose_answer_is_lost_is_returned_by_the_next(
    server: Resources, batch: Batch, events: Any, cut: Cut, statement: str
) -> None:
    for _ in range(2):
        await service.enqueue(server, "default", batch)
    events.sent.clear()
    worker = claims.WorkerClaims(server, "cpu", "w")
    cut(statement)
    with pytest.raises(OperationalError):
        await worker.claim()
    assert names(events) == []
    first = await worker.claim()
    assert first
    assert first.item_id == 1
    assert names(events) == [("queue_item_status_changed", "in_progress")]
    second = await worker.claim()
    assert second
    assert second.item_id == 2


async def test_an_interruption_whose_answer_is_lost_is_reported(
    server: Resources, batch: Batch, events: Any, cut: Cut
) -> None:
    await service.enqueue(server, "default", batch)
    assert await claims.claim(server, "cpu", worker_id="w")
    events.sent.clear()
    cut("COMMIT")
    assert await leases.interrupt(server, "w", "it died") == [1]
    assert names(events) == [("queue_item_status_changed", "pending")]


async def test_a_batch_whose_answer_is_lost_is_enqueued_once(
    server: Resources, batch: Batch, events: Any, cut: Cut
) -> None:
    cut("COMMIT")
    result = await service.enqueue(server, "default", batch)
    assert (result.enqueued, len(result.item_ids)) == (1, 1)
    assert names(events) == [("batch_enqueued", None)]
    assert (await counts.of_queue(server.database, "default")).queue.pending == 1


async def test_a_call_whose_answer_is_lost_is_begun_once(
    server: Resources, batch: Batch, events: Any, cut: Cut
) -> None:
    await service.enqueue(server, "default", batch)
    item = await claims.claim(server, "cpu")
    assert item
    state = GraphExecutionState.model_validate_json(item.session)
    state.waiting_workflow_call_execution = WorkflowCallExecution(
        parent_session_id=state.id,
        prepared_call_node_id="copy",
        source_call_node_id="call",
        workflow_id="w",
        depth=1,
        status="waiting_for_child",
        expected_child_count=1,
    )
    record = await store.get(server.database, "default", item.item_id)
    events.sent.clear()
    cut("COMMIT")
    await chain.suspend(server, record, item.fence, state, [chain.CalledSession("s2", "{}")], "{}")
    items = await store.list_items(server.database, [1, 2, 3])
    assert [(called.item_id, called.status) for called in items] == [(1, "waiting"), (2, "pending")]
    assert names(events) == [("queue_item_status_changed", "waiting"), ("batch_enqueued", None)]


async def test_a_client_learns_that_its_batch_may_be_stored(server: Resources, batch: Batch, cut: Cut) -> None:
    cut("COMMIT", "", "")  # the question for the items fails, too
    with pytest.raises(CommitUnknown) as caught:
        await service.enqueue(server, "default", batch)
    error = to_storage_error(caught.value)
    assert error is not None
    assert error.status == 503
    assert "check whether the change was stored" in str(error)


async def test_a_result_that_changes_no_item_is_not_taken_as_stored(server: Resources, batch: Batch, cut: Cut) -> None:
    """Nothing shows whether the session of a canceled item is stored, so that the worker has to repeat it."""
    await service.enqueue(server, "default", batch)
    item = await claims.claim(server, "cpu")
    assert item
    await service.cancel(server, "default", item.item_id)
    cut("COMMIT")
    with pytest.raises(CommitUnknown):
        await claims.finish(server, item.item_id, "canceled", session_json=',"results":{}}', fence=item.fence)


async def test_a_repeated_result_reports_the_callers_that_the_first_has_changed(
    server: Resources, events: Any, cut: Cut
) -> None:
    """Item 1 waits for two items, of which one was deleted: it is canceled when the other one, item 2, has ended."""
    row = {"queue_id": "default", "batch_id": "b", "created_at": now(), "updated_at": now()}
    call = '{"waiting_workflow_call_execution": {"id": "c", "expected_child_count": 2}}'
    caller = row | {"session_id": "s1", "status": "waiting", "session": call}
    called = row | {
        "session_id": "s2",
        "session": "{}",
        "parent_item_id": 1,
        "root_item_id": 1,
        "workflow_call_id": "c",
    }
    async with server.database.write() as connection:
        for values in (caller, called):
            await connection.execute(insert(session_queue).values(values))
    item = await claims.claim(server, "cpu")
    assert item
    events.sent.clear()
    cut("COMMIT", "", "")
    with pytest.raises(OperationalError):
        await claims.finish(server, item.item_id, "completed", fence=item.fence)
    assert await claims.finish(server, item.item_id, "completed", fence=item.fence)
    assert [(event.item_id, event.status) for event in events.sent] == [(2, "completed"), (1, "canceled")]
