"""Saved workflows called from a graph: items that wait, items that run for them, and how the end of one is that of others."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest
from sqlalchemy import func, select, update

from invokeclone.graph.invocations import registry
from invokeclone.queue import claims, processor, service, store
from invokeclone.queue.batches import Batch
from invokeclone.queue.bulk import ItemFilter
from invokeclone.tables import session_graphs, session_queue
from invokeclone.users.current import SYSTEM, User
from invokeclone.worker.interfaces.context import make_context
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.runner import SessionRunner
from invokeclone.worker.tensors import StoredObjectNotFound
from invokeclone.workflows import service as library
from invokeclone.workflows.schemas import WorkflowWithoutID
from tests.worker.joined import WORKER, Link, join
from tests.workflows.drawing import RETURNING, RETURNS, callable_workflow, edge, form, node

EVERYTHING = ItemFilter(queue_id="default")
INPUT = "saved_workflow_input::i::value"


class Queue:
    """The queue with one worker, turned by hand."""

    def __init__(self, tools: Tools, device: str = "cpu", joined: Tools | None = None) -> None:
        self.tools = tools
        self.device = device
        self.resources = tools.resources
        self.is_joined = joined is not None
        self.runner = SessionRunner(joined or tools, make_context)

    async def save(self, sent: dict[str, Any], user: User = SYSTEM) -> str:
        """Put a workflow into the library and return its id."""
        record = await library.create(self.resources, WorkflowWithoutID.model_validate(sent), user)
        return str(orjson.loads(record)["workflow_id"])

    async def enqueue(self, nodes: dict[str, Any], *edges: tuple[str, str], user: User = SYSTEM) -> int:
        """Enqueue a graph and return its item's id."""
        graph_nodes = {name: {"id": name, **fields} for name, fields in nodes.items()}
        ends = [[dict(zip(("node_id", "field"), pair.split(".", 1), strict=True)) for pair in way] for way in edges]
        graph = {"nodes": graph_nodes, "edges": [{"source": pair[0], "destination": pair[1]} for pair in ends]}
        batch = Batch.model_validate({"graph": graph, "runs": 1, "origin": "o", "destination": "d"})
        return (await service.enqueue(self.resources, "default", batch, user=user)).item_ids[0]

    async def turn(self) -> int | None:
        """Run the next item as far as it goes and return its id."""
        item = await claims.claim(self.resources, self.device, worker_id=WORKER if self.is_joined else None)
        if item is None:
            return None
        outcome = await asyncio.to_thread(self.runner.run, item, threading.Event())
        if outcome.status != "waiting":
            finished = await claims.finish(
                self.resources, item.item_id, outcome.status, session_json=outcome.session_json, error=outcome.error
            )
            if finished and outcome.announce:
                outcome.announce()
        return item.item_id

    async def drain(self) -> list[int]:
        """Run until nothing is pending; return the items in the order of their turns."""
        turns = []
        while (item_id := await self.turn()) is not None:
            turns.append(item_id)
        return turns

    async def row(self, item_id: int) -> dict[str, Any]:
        """Return an item as clients read it."""
        async with self.resources.database.read() as connection:
            return orjson.loads(await store.get_json(connection, "default", item_id))

    async def statuses(self) -> list[str]:
        """Return the statuses of all items, the oldest first."""
        async with self.resources.database.read() as connection:
            rows = await connection.execute(select(session_queue.c.status).order_by(session_queue.c.item_id))
            return [row[0] for row in rows]

    async def result(self, item_id: int, name: str) -> Any:
        """Return what a node of an item gave out."""
        session = (await self.row(item_id))["session"]
        (copy_id,) = session["source_prepared_mapping"][name]
        return session["results"][copy_id]


@pytest.fixture(scope="session", autouse=True)
def nodes(toys: ModuleType) -> None:
    registry.discover()


@pytest.fixture(params=["local", "joined"])
def queue(request: pytest.FixtureRequest, tools: Tools, link: Link, tmp_path: Path) -> Queue:
    """Return the queue with a worker on the same database, or one that only has a link to the server."""
    joined = join(tools, link, tmp_path / "joined") if request.param == "joined" else None
    return Queue(tools, joined=joined)


Call = Callable[..., Awaitable[int]]


@pytest.fixture
def call(queue: Queue) -> Call:
    """Enqueue a graph that calls a workflow and takes the value `n` that it returns."""

    async def act(workflow_id: str, user: User = SYSTEM, **inputs: Any) -> int:
        nodes = {
            "call": {"type": "call_saved_workflow", "workflow_id": workflow_id, "workflow_inputs": inputs},
            "get": {"type": "workflow_return_get", "key": "n"},
        }
        return await queue.enqueue(nodes, ("call.values", "get.values"), user=user)

    return act


def offering(name: str = "c", **fields: Any) -> dict[str, Any]:
    """Return a callable workflow whose number a caller may set."""
    return callable_workflow(name, form=form(("i", "value")), **fields)


def failing() -> dict[str, Any]:
    return callable_workflow(nodes=[*RETURNING, node("f", "toy_fail")], edges=RETURNS)


def with_batch(values: list[int], **fields: Any) -> dict[str, Any]:
    nodes = [node("b", "integer_batch", integers=values, batch_group_id="None"), *RETURNING[1:]]
    return callable_workflow(nodes=nodes, edges=[edge("b.value", "v.value"), RETURNS[1]], **fields)


async def test_call_runs_to_completion(queue: Queue, call: Call, channel, events) -> None:
    workflow_id = await queue.save(offering())
    events.sent.clear()
    caller = await call(workflow_id, **{INPUT: 7})
    assert await queue.turn() == caller
    assert await queue.statuses() == ["waiting", "pending"]
    waiting, called = await queue.row(caller), await queue.row(caller + 1)
    execution = waiting["session"]["waiting_workflow_call_execution"]
    assert execution["child_item_ids"] == [called["item_id"]]
    assert called["session"]["workflow_call_parent"]["workflow_call_id"] == execution["id"]
    assert {key: called[key] for key in ("batch_id", "origin", "destination", "priority", "user_id")} == {
        key: waiting[key] for key in ("batch_id", "origin", "destination", "priority", "user_id")
    }
    assert [
        called[key]
        for key in ("workflow_call_id", "parent_item_id", "parent_session_id", "root_item_id", "workflow_call_depth")
    ] == [execution["id"], caller, waiting["session_id"], caller, 1]
    assert called["workflow"]["name"] == "c"
    assert await queue.drain() == [caller + 1, caller]
    assert await queue.statuses() == ["completed", "completed"]
    assert (await queue.result(caller, "get"))["value"] == 7
    session = (await queue.row(caller))["session"]
    assert session["workflow_call_stack"] == []
    (record,) = session["workflow_call_history"]
    assert record["status"] == "completed"
    assert list(record["child_outputs"].values()) == [{"n": 7}]
    assert channel.node_events()[0] == ("invocation_started", "call")
    statuses = [(event.name, event.status) for event in events.sent if event.name == "queue_item_status_changed"]
    assert [status for _, status in statuses] == [
        "in_progress", "waiting", "in_progress", "completed", "pending", "in_progress", "completed",
    ]  # fmt: skip
    (complete,) = [event for event in events.sent if event.name == "invocation_complete"]
    assert (complete.item_id, complete.invocation_source_id) == (caller, "call")
    assert complete.result["values"] == {"n": 7}
    assert events.names().count("batch_enqueued") == 2


async def test_call_inputs_are_passed_over_edges(queue: Queue) -> None:
    workflow_id = await queue.save(offering())
    nodes = {
        "five": {"type": "toy_number", "value": 5},
        "call": {"type": "call_saved_workflow", "workflow_id": workflow_id},
        "get": {"type": "workflow_return_get", "key": "n"},
        "sum": {"type": "toy_add", "b": 1},
    }
    edges = [("five.value", f"call.{INPUT}"), ("call.values", "get.values"), ("get.value", "sum.a")]
    caller = await queue.enqueue(nodes, *edges)
    await queue.drain()
    assert (await queue.result(caller, "sum"))["value"] == 6


async def test_batch_runs_once_per_value_and_returns_ordered_results(queue: Queue, call: Call) -> None:
    caller = await call(await queue.save(with_batch([3, 1, 2])))
    await queue.turn()
    assert await queue.statuses() == ["waiting", "pending", "pending", "pending"]
    await queue.turn()
    await queue.turn()
    assert (await queue.statuses())[0] == "waiting"
    await queue.drain()
    assert (await queue.result(caller, "get"))["value"] == [3, 1, 2]
    assert set(await queue.statuses()) == {"completed"}
    counted = (await processor.status(queue.resources, "default")).queue
    assert (counted.completed, counted.total) == (4, 4)


async def test_a_called_workflow_calls_another(queue: Queue, call: Call) -> None:
    inner = await queue.save(offering())
    middle = node("i", "call_saved_workflow", workflow_id=inner)
    middle["data"]["inputs"][INPUT] = {"name": INPUT, "label": "", "value": 9}
    get = node("g", "workflow_return_get", values=..., key="n")
    edges = [edge("i.values", "g.values"), edge("g.value", "v.value"), RETURNS[1]]
    caller = await call(await queue.save(callable_workflow(nodes=[middle, get, *RETURNING[1:]], edges=edges)))
    await queue.turn()
    await queue.turn()
    assert await queue.statuses() == ["waiting", "waiting", "pending"]
    last = await queue.row(caller + 2)
    assert (last["root_item_id"], last["parent_item_id"], last["workflow_call_depth"]) == (caller, caller + 1, 2)
    await queue.drain()
    assert (await queue.row(caller))["error_message"] is None
    assert (await queue.result(caller, "get"))["value"] == 9


async def test_calls_may_be_repeated_and_iterated(queue: Queue) -> None:
    workflow_id = await queue.save(offering())
    nodes = {
        "range": {"type": "range", "start": 4, "stop": 7},
        "each": {"type": "iterate"},
        "call": {"type": "call_saved_workflow", "workflow_id": workflow_id},
        "get": {"type": "workflow_return_get", "key": "n"},
        "all": {"type": "collect"},
    }
    edges = [
        ("range.collection", "each.collection"),
        ("each.item", f"call.{INPUT}"),
        ("call.values", "get.values"),
        ("get.value", "all.item"),
    ]
    caller = await queue.enqueue(nodes, *edges)
    await queue.drain()
    assert (await queue.result(caller, "all"))["collection"] == [4, 5, 6]
    assert len((await queue.row(caller))["session"]["workflow_call_history"]) == 3


async def test_failed_run_fails_its_caller(queue: Queue, call: Call, events) -> None:
    caller = await call(await queue.save(failing()))
    await queue.drain()
    assert await queue.statuses() == ["failed", "failed"]
    row = await queue.row(caller)
    assert row["error_type"] == "ValueError"
    assert (await queue.row(caller + 1))["error_message"] in row["error_message"]
    assert row["error_traceback"] == row["error_message"]
    assert list(row["session"]["errors"].values()) == [f"ValueError: {row['error_message']}"]
    assert events.names()[-2:] == ["queue_item_status_changed", "invocation_error"]


@pytest.mark.parametrize("sent", [offering, failing])
async def test_a_caller_whose_session_cannot_be_read_any_more_fails(
    queue: Queue, call: Call, sent: Callable[[], dict[str, Any]]
) -> None:
    """As after a node pack was removed; it must not keep the items of this and other calls from ending."""
    caller = await call(await queue.save(sent()))
    await queue.turn()
    registry.restrict(deny_nodes=["workflow_return_get"])
    try:
        await queue.turn()
    finally:
        registry.restrict()
    assert await queue.statuses() == ["failed", "completed" if sent is offering else "failed"]
    row = await queue.row(caller)
    assert row["error_message"].startswith("the item cannot be continued after its call")
    assert "workflow_return_get" in row["error_message"]


async def damage(queue: Queue, item_id: int) -> None:
    """Let the compressed session of an item be other bytes, as after a fault of the disk."""
    async with queue.resources.database.write() as connection:
        graph_id = await connection.scalar(select(session_graphs.c.graph_id).limit(1))
        values = {"session": b"damaged", "graph_id": graph_id}
        await connection.execute(update(session_queue).where(session_queue.c.item_id == item_id).values(**values))


async def test_a_damaged_caller_fails_and_lets_other_calls_end(queue: Queue, call: Call) -> None:
    caller, _ = [await call(await queue.save(callable_workflow())) for _ in range(2)]
    await queue.turn()
    await queue.turn()
    await damage(queue, caller)
    await queue.drain()
    assert await queue.statuses() == ["failed", "completed", "completed", "completed"]


async def test_a_damaged_item_fails_when_it_is_claimed(queue: Queue, call: Call) -> None:
    """And does not stall the queue."""
    damaged, _ = [await call(await queue.save(callable_workflow())) for _ in range(2)]
    await damage(queue, damaged)
    await queue.drain()
    assert await queue.statuses() == ["failed", "completed", "completed"]
    assert "is damaged; enqueue it again" in (await queue.row(damaged))["error_message"]


async def test_a_damaged_result_fails_the_caller(queue: Queue, call: Call) -> None:
    caller = await call(await queue.save(with_batch([1, 2])))
    await queue.turn()
    called = await queue.turn()
    assert called is not None
    await damage(queue, called)
    await queue.drain()
    assert await queue.statuses() == ["failed", "completed", "completed"]
    assert (await queue.row(caller))["error_message"].startswith("the item cannot be continued after its call")


async def test_failed_run_cancels_the_other_runs(queue: Queue, call: Call) -> None:
    nodes = [node("b", "integer_batch", integers=[1, 20, 3]), node("t", "toy_bounded", value=...), *RETURNING[1:]]
    edges = [edge("b.value", "t.value"), edge("t.value", "v.value"), RETURNS[1]]
    sent = failing()
    sent["nodes"] += [node("b", "integer_batch", integers=[1, 2]), node("m", "add", a=...)]
    sent["edges"] = [*sent["edges"], edge("b.value", "m.a")]
    await call(await queue.save(sent))
    await queue.turn()
    await queue.turn()
    assert await queue.statuses() == ["failed", "failed", "canceled"]
    refusing = await call(await queue.save(callable_workflow(nodes=nodes, edges=edges)))
    assert "not valid" in await refusal_text(queue, refusing)


async def refusal_text(queue: Queue, caller: int) -> str:
    """Return why a call was not made; the item failed at once and nothing was queued for it."""
    await queue.drain()
    row = await queue.row(caller)
    assert (row["status"], row["error_type"]) == ("failed", "ValueError")
    assert row["error_traceback"] == row["error_message"]
    assert row["session"].get("waiting_workflow_call") is None
    assert row["session"]["workflow_call_stack"] == []
    return str(row["error_message"])


async def test_invalid_calls_are_refused(queue: Queue, call: Call, channel) -> None:
    assert "'nope'" in await refusal_text(queue, await call("nope"))
    assert channel.names() == ["invocation_started", "invocation_error"]
    closed = await queue.save(callable_workflow())
    assert "does not expose an input" in await refusal_text(queue, await call(closed, **{INPUT: 1}))
    opened = await queue.save(offering())
    assert "does not expose an input" in await refusal_text(queue, await call(opened, value=1))
    assert "not valid" in await refusal_text(queue, await call(opened, **{INPUT: "many"}))
    without = await queue.save(callable_workflow(nodes=RETURNING[:2], edges=RETURNS[:1]))
    assert "workflow_return" in await refusal_text(queue, await call(without))
    assert set(await queue.statuses()) == {"failed"}


async def test_call_over_the_queue_limit_is_refused(queue: Queue, call: Call) -> None:
    workflow_id = await queue.save(with_batch([1, 2, 3]))
    caller = await call(workflow_id)
    settings = queue.resources.settings.model_copy(update={"max_queue_size": 3})
    queue.runner._tools = replace(queue.tools, resources=replace(queue.resources, settings=settings))
    await queue.enqueue({"a": {"type": "toy_number"}})
    assert "cannot be enqueued: the queue is full" in await refusal_text(queue, caller)
    assert await queue.statuses() == ["failed", "completed"]


async def test_recursive_workflow_stops_at_the_depth_limit(queue: Queue, call: Call) -> None:
    workflow_id = await queue.save(offering())
    again = callable_workflow(
        nodes=[*RETURNING, node("again", "call_saved_workflow", workflow_id=workflow_id)], edges=RETURNS
    )
    changed = orjson.loads(await library.get(queue.resources, workflow_id, SYSTEM))["workflow"] | {
        "nodes": again["nodes"]
    }
    from invokeclone.workflows.schemas import Workflow

    await library.update(queue.resources, Workflow.model_validate(changed), SYSTEM)
    caller = await call(workflow_id)
    await queue.drain()
    assert await queue.statuses() == ["failed"] * 5
    assert "at most 4 levels deep" in (await queue.row(caller))["error_message"]


async def test_calling_a_workflow_needs_read_access(queue: Queue, tools: Tools, call: Call, tmp_path: Path) -> None:
    from tests.accounts import account

    settings = tools.resources.settings.model_copy(update={"multiuser": True})
    local = replace(tools, resources=replace(tools.resources, settings=settings))
    joined = join(local, Link(local.resources), tmp_path / "shared") if queue.is_joined else None
    shared = Queue(local, joined=joined)
    owner, other = [User(user_id=(await account(tools.resources.database, name)).user_id) for name in ("ann", "bob")]
    workflow_id = await shared.save(offering(), owner)
    assert "another user" in await refusal_text(shared, await call(workflow_id, other))
    owner_item = await call(workflow_id, owner)
    await shared.drain()
    assert (await shared.row(owner_item))["status"] == "completed"
    await library.set_public(shared.resources, workflow_id, owner, is_public=True)
    other_item = await call(workflow_id, other)
    await shared.drain()
    assert (await shared.row(other_item))["status"] == "completed"
    assert (await shared.row(other_item + 1))["user_id"] == other.user_id


@pytest.mark.parametrize("canceled", ["caller", "called"])
async def test_canceling_one_item_cancels_its_call_chain(queue: Queue, call: Call, canceled: str, events) -> None:
    caller = await call(await queue.save(with_batch([1, 2])))
    await queue.turn()
    running = await claims.claim(queue.resources, "cpu")
    assert running
    await service.cancel(queue.resources, "default", caller if canceled == "caller" else caller + 2)
    assert set(await queue.statuses()) == {"canceled"}
    last = [event.item_id for event in events.sent if getattr(event, "status", "") == "canceled"]
    assert sorted(last) == [caller, caller + 1, caller + 2]
    assert not await claims.is_running(queue.resources, running.item_id)
    assert await claims.finish(queue.resources, running.item_id, "completed", session_json=',"results":{}}') is None
    assert await queue.drain() == []


@pytest.mark.parametrize("deleted", [0, 1, 2])
async def test_deleting_one_item_deletes_its_call_chain(queue: Queue, call: Call, deleted: int, events) -> None:
    workflow_id = await queue.save(with_batch([1, 2]))
    other = await call(workflow_id)
    await queue.turn()
    caller = await call(workflow_id)
    for _ in range(4):
        await queue.turn()
    assert await queue.statuses() == ["completed", "completed", "completed", "waiting", "pending", "pending"]
    running = await claims.claim(queue.resources, "cpu")
    assert running
    events.sent.clear()
    await service.delete(queue.resources, "default", caller + deleted)
    async with queue.resources.database.read() as connection:
        assert await store.list_ids(connection, "default", newest_first=False) == [other, other + 1, other + 2]
    statuses = [(event.item_id, event.status) for event in events.sent if event.name == "queue_item_status_changed"]
    assert statuses == [(item_id, "canceled") for item_id in (caller, caller + 1, caller + 2)]
    assert await claims.finish(queue.resources, running.item_id, "completed", session_json=',"results":{}}') is None


async def test_deleting_includes_nested_calls(queue: Queue, call: Call) -> None:
    inner = await queue.save(offering("inner"))
    middle = node("m", "call_saved_workflow", workflow_id=inner)
    outer = await queue.save(callable_workflow("outer", nodes=[*RETURNING, middle], edges=RETURNS))
    for item in range(3):
        caller = await call(outer)
        await queue.drain()
        assert await queue.statuses() == ["completed"] * 3
        await service.delete(queue.resources, "default", caller + item)
        assert await queue.statuses() == []


async def test_running_item_keeps_its_call_chain(queue: Queue, call: Call) -> None:
    caller = await call(await queue.save(with_batch([1, 2])))
    await queue.turn()
    await queue.enqueue({"a": {"type": "toy_number"}})
    assert await claims.claim(queue.resources, "cpu")
    assert await service.cancel_idle(queue.resources, EVERYTHING) == 1
    assert await queue.statuses() == ["waiting", "in_progress", "pending", "canceled"]
    await queue.enqueue({"a": {"type": "toy_number"}})
    assert await service.delete_idle(queue.resources, EVERYTHING) == 1
    assert await queue.statuses() == ["waiting", "in_progress", "pending", "canceled"]
    assert caller == 1


@pytest.mark.parametrize("act", [service.cancel_many, service.clear, service.delete_many])
async def test_clearing_the_queue_ends_calls(queue: Queue, call: Call, act: Any) -> None:
    await call(await queue.save(with_batch([1, 2])))
    await queue.turn()
    running = await claims.claim(queue.resources, "cpu")
    assert running
    await act(queue.resources, EVERYTHING)
    assert set(await queue.statuses()) <= {"canceled"}
    assert await queue.drain() == []


async def test_pruning_keeps_items_with_a_waiting_caller(queue: Queue, call: Call) -> None:
    caller = await call(await queue.save(with_batch([1, 2])))
    await queue.turn()
    await queue.turn()
    assert await service.prune(queue.resources, EVERYTHING) == 0
    await queue.drain()
    assert (await queue.result(caller, "get"))["value"] == [1, 2]
    assert await service.prune(queue.resources, EVERYTHING) == 3


async def test_a_worker_that_dies_fails_the_call(queue: Queue, call: Call) -> None:
    caller = await call(await queue.save(with_batch([1, 2])))
    await queue.turn()
    assert await claims.claim(queue.resources, "cpu")
    assert await claims.fail_orphans(queue.resources, "cpu", "gone") == [caller + 1]
    assert await queue.statuses() == ["failed", "failed", "canceled"]


async def test_server_start_ends_calls_and_leaves_no_waiting_items(queue: Queue, call: Call) -> None:
    await call(await queue.save(with_batch([1, 2])))
    await queue.turn()
    await claims.recover(queue.resources)
    assert await queue.statuses() == ["canceled"] * 3
    again = await call(await queue.save(offering()))
    await queue.turn()
    await queue.turn()
    assert (await queue.row(again))["status"] == "pending"
    await claims.recover(queue.resources)
    assert (await queue.row(again))["device"] is None
    await queue.drain()
    assert (await queue.row(again))["status"] == "completed"


async def test_waiting_item_with_stored_tensors_stays_on_its_worker(queue: Queue, call: Call, tools: Tools) -> None:
    """Tensors are kept by the worker that made them, so no other worker may go on with the item."""
    retained, lost = tools.tensors.save([1], "Tensor"), tools.tensors.save([2], "Tensor")
    caller = await call(await queue.save(offering()))
    async with queue.resources.database.write() as connection:
        key = func.replace(session_graphs.c.template, '"key":"n"', f'"key":"{retained}"')
        await connection.execute(update(session_graphs).values(template=key))
    await queue.turn()
    assert tools.tensors.load(retained) == [1]
    with pytest.raises(StoredObjectNotFound):
        tools.tensors.load(lost)
    other = Queue(tools, "cuda:1")
    assert await other.turn() == caller + 1
    assert await other.turn() is None
    assert await queue.turn() == caller
    with pytest.raises(StoredObjectNotFound):
        tools.tensors.load(retained)


async def test_runs_that_return_different_things(queue: Queue, call: Call) -> None:
    nodes = [
        node("b", "string_batch", strings=["n", "m"]),
        node("v", "workflow_return_value", key=...),
        node("r", "workflow_return", values=...),
    ]
    edges = [edge("b.value", "v.key"), edge("v.value", "r.values")]
    caller = await call(await queue.save(callable_workflow(nodes=nodes, edges=edges)))
    await queue.drain()
    assert await queue.statuses() == ["failed", "completed", "completed"]
    assert "different keys" in (await queue.row(caller))["error_message"]


async def test_returning_inside_an_iteration_is_an_error(queue: Queue, call: Call) -> None:
    nodes = [node("a", "range", stop=2), node("e", "iterate"), *RETURNING[1:]]
    edges = [edge("a.collection", "e.collection"), edge("e.item", "v.value"), RETURNS[1]]
    caller = await call(await queue.save(callable_workflow(nodes=nodes, edges=edges)))
    await queue.drain()
    assert "returned 2 times" in (await queue.row(caller))["error_message"]


async def test_generators_run_on_behalf_of_the_caller(queue: Queue, call: Call) -> None:
    generator = {"type": "string_generator_dynamic_prompts_combinatorial", "input": "a {b|c}", "maxPrompts": 5}
    nodes = [
        node("g", "string_generator", generator=generator),
        node("b", "string_batch", strings=...),
        *RETURNING[1:],
    ]
    edges = [edge("g.strings", "b.strings"), edge("b.value", "v.value"), RETURNS[1]]
    caller = await call(await queue.save(callable_workflow(nodes=nodes, edges=edges)))
    await queue.drain()
    assert (await queue.result(caller, "get"))["value"] == ["a b", "a c"]


async def test_board_image_generator_runs_on_behalf_of_the_caller(queue: Queue, call: Call) -> None:
    from invokeclone.boards import store as boards
    from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
    from invokeclone.images import service as images
    from tests.applications import sample_image

    async with queue.resources.database.write() as connection:
        board_id = (await boards.create(connection, "b")).board_id
    image = await images.save(
        queue.resources,
        sample_image(),
        category=ImageCategory.GENERAL,
        origin=ResourceOrigin.INTERNAL,
        board_id=board_id,
    )

    def board_workflow(board: str | None) -> dict[str, Any]:
        generator = {"type": "image_generator_images_from_board", "category": "images"}
        generator |= {"board_id": board} if board else {}
        nodes = [
            node("g", "image_generator", generator=generator),
            node("b", "image_batch", images=...),
            *RETURNING[1:],
        ]
        edges = [edge("g.images", "b.images"), edge("b.image", "v.value"), RETURNS[1]]
        return callable_workflow(nodes=nodes, edges=edges)

    caller = await call(await queue.save(board_workflow(board_id)))
    await queue.drain()
    assert (await queue.result(caller, "get"))["value"] == {"image_name": image.image_name}
    assert "has no board selected" in await refusal_text(queue, await call(await queue.save(board_workflow(None))))
    assert "no values" in await refusal_text(queue, await call(await queue.save(board_workflow("nope"))))


async def test_retry_makes_its_call_again(queue: Queue, call: Call) -> None:
    caller = await call(await queue.save(failing()))
    await queue.drain()
    assert (await service.retry(queue.resources, "default", [caller])).retried_item_ids == [caller]
    await queue.drain()
    assert await queue.statuses() == ["failed"] * 4


async def test_retrying_a_called_item_retries_its_caller_once(queue: Queue, call: Call, events) -> None:
    caller = await call(await queue.save(failing()))
    alone = await queue.enqueue({"a": {"type": "toy_fail"}})
    await queue.drain()
    called = alone + 1
    assert (await queue.row(called))["parent_item_id"] == caller
    events.sent.clear()
    item_ids = [alone, called, caller, alone]
    assert (await service.retry(queue.resources, "default", item_ids)).retried_item_ids == [alone, caller]
    assert events.sent[-1].retried_item_ids == [alone, caller]
    repeat = await queue.row(called + 2)
    assert (repeat["retried_from_item_id"], repeat["parent_item_id"], repeat["root_item_id"]) == (caller, None, None)
    assert await queue.drain() == [called + 1, called + 2, called + 3]
    assert (await queue.row(called + 3))["parent_item_id"] == called + 2


async def test_called_item_is_not_retried_unless_its_caller_is_retried(queue: Queue, call: Call) -> None:
    caller = await call(await queue.save(offering()))
    await queue.drain()
    async with queue.resources.database.write() as connection:
        await connection.execute(
            update(session_queue).where(session_queue.c.item_id == caller + 1).values(status="failed")
        )
    assert (await service.retry(queue.resources, "default", [caller + 1])).retried_item_ids == []
