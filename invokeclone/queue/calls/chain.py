"""Workflow calls between queue items: an item waits for the items it called and resumes or ends with them.

The rows record the caller of each item; the session of a waiting item records the call. Whenever an item ends (finished
by a worker, canceled or deleted), `settle` updates its call chain in the same transaction.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import insert, select, update

from invokeclone.graph.context import CanceledException
from invokeclone.graph.invocations import registry
from invokeclone.graph.session.call_frames import WorkflowCallExecution
from invokeclone.graph.session.execution import GraphExecutionState
from invokeclone.kit import log
from invokeclone.kit.errors import TooMany
from invokeclone.kit.events import Event
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source, parameter
from invokeclone.kit.sql.transactions import Changes, CommitUnknown
from invokeclone.kit.times import now
from invokeclone.queue import bulk_counts, capacity, counts, store
from invokeclone.queue.bulk import NOT_JOINED
from invokeclone.queue.bulk_counts import CountKey
from invokeclone.queue.events import (
    BatchEnqueuedEvent,
    InvocationCompleteEvent,
    InvocationErrorEvent,
    QueueItemStatusChangedEvent,
)
from invokeclone.queue.reports import list_stored, report
from invokeclone.queue.rows import RECORD, Item, columns, has_status, to_item
from invokeclone.queue.schemas import ACTIVE
from invokeclone.queue.sessions import STORED, assemble_session
from invokeclone.tables import session_queue

_log = log.get("queue")
RETURN = "workflow_return"
RETURNED = "workflow_return_output"


class CallFailed(ValueError):
    """The call of a saved workflow failed; reported to clients as a ValueError."""


class CalledSession(NamedTuple):
    """A session of a call: its id and its JSON text."""

    session_id: str
    session: str


async def status_event(source: Source, item: Item) -> QueueItemStatusChangedEvent:
    """Return the event for an item whose status has just been written, with the counts of this transaction."""
    return QueueItemStatusChangedEvent.of(item, *await counts.of_item(source, item))


# Starting


async def suspend(
    resources: Resources,
    item: Item,
    fence: int,
    state: GraphExecutionState,
    called: Sequence[CalledSession],
    workflow: str,
) -> None:
    """Set `item`, held by the claim with `fence`, to waiting for the call in `state`, and enqueue the called sessions.

    Raises CallFailed if they exceed the queue's capacity or the user's quota, CanceledException if the item is no longer
    running, CommitUnknown if it cannot be read whether they are enqueued.
    """
    execution = state.waiting_workflow_call_execution
    assert execution is not None

    async def wait(connection: Changes) -> Event:
        waiting = await store.set_status(connection, item.item_id, "waiting", fence=fence or None)
        if waiting is None:
            raise CanceledException("the queue item was canceled")
        try:
            free = await capacity.measure(connection, resources.settings, item.queue_id, item.user_id)
            free.check(len(called), whole=True)
        except TooMany as error:
            raise CallFailed(f"The {len(called)} runs of the workflow cannot be enqueued: {error}") from error
        execution.child_item_ids = await _add(connection, item, execution, called, workflow)
        await store.save_session(connection, item.item_id, state.rest_json())
        return await status_event(connection, waiting)

    try:
        event = await resources.database.transact(wait)
    except CommitUnknown as unknown:
        event = unknown.result
        if not await list_stored(resources, execution.child_item_ids[:1]):
            raise
    enqueued = BatchEnqueuedEvent(
        queue_id=item.queue_id,
        batch_id=item.batch_id,
        enqueued=len(called),
        requested=len(called),
        priority=item.priority,
        origin=item.origin,
        user_id=item.user_id,
    )
    report(resources, [event, enqueued])


async def _add(
    connection: Changes,
    item: Item,
    execution: WorkflowCallExecution,
    called: Sequence[CalledSession],
    workflow: str,
) -> list[int]:
    """Insert the called sessions as pending items and return their ids."""
    row = await _ROOT.first(connection, item_id=item.item_id)
    timestamp = now()
    shared = {
        **{name: getattr(item, name) for name in ("queue_id", "batch_id", "priority", "origin", "destination")},
        "user_id": item.user_id,
        "workflow": workflow,
        "workflow_call_id": execution.id,
        "parent_item_id": item.item_id,
        "parent_session_id": execution.parent_session_id,
        "root_item_id": (row and row[0]) or item.item_id,
        "workflow_call_depth": execution.depth,
        "created_at": timestamp,
        "updated_at": timestamp,
    }
    for child in called:
        await _ADD.rows(connection, **child._asdict(), **shared)
    kind = CountKey(item.batch_id, item.destination, item.user_id, "pending")
    await bulk_counts.update_counts(connection, item.queue_id, {kind: len(called)})
    return [child.item_id for child in await _list_called(connection, item.item_id, execution.id)]


_ROOT = PreparedStatement(select(columns.root_item_id).where(columns.item_id == parameter("item_id")))
_ADDED = (
    *("session_id", "session", "queue_id", "batch_id", "priority", "origin", "destination", "user_id", "workflow"),
    *("workflow_call_id", "parent_item_id", "parent_session_id", "root_item_id", "workflow_call_depth"),
    *("created_at", "updated_at"),
)
_ADD = PreparedStatement(insert(session_queue).values({name: parameter(name) for name in _ADDED}))


# Ending


async def settle(connection: Changes) -> list[Event]:
    """Update all call chains after items have ended; return the events to emit after the commit.

    Items whose caller no longer waits are canceled. Waiting items resume, fail or are canceled with those they called.
    """
    events: list[Event] = []
    if await _ANY_CALL.first(connection) is None:
        return events
    while True:
        event_count = len(events)
        for item_id in await _list_abandoned(connection):
            canceled = await store.set_status(connection, item_id, "canceled")
            events += [await status_event(connection, canceled)] if canceled else []
        for item_id, *stored in await _WAITING.rows(connection):
            events += await _advance_or_fail(connection, item_id, stored)
        if len(events) == event_count:
            return events


async def settle_calls(connection: Changes, *items: Item | None) -> list[Event]:
    """Update the call chains if any of the items belongs to one; return the events to emit."""
    return await settle(connection) if any(item and item.in_call for item in items) else []


async def list_caller_events(connection: Changes, item: Item) -> list[Event]:
    """Return events for the present statuses of the callers of an ended item, up to the first of its call chain."""
    events: list[Event] = []
    row = await _CALLER.first(connection, item_id=item.item_id) if item.in_call else None
    while row is not None:
        caller = to_item(row)
        events.append(await status_event(connection, caller))
        row = await _CALLER.first(connection, item_id=caller.item_id)
    return events


def _caller() -> PreparedStatement:
    called = session_queue.alias("called").c
    caller_id = select(called.parent_item_id).where(called.item_id == parameter("item_id"))
    return PreparedStatement(select(*RECORD).where(columns.item_id == caller_id.scalar_subquery()))


_CALLER = _caller()

_ANY_CALL = PreparedStatement(
    select(columns.item_id)
    .where(columns.parent_item_id.is_not(None))
    .union_all(select(columns.item_id).where(has_status(columns, "waiting")))
    .limit(1)
)
"""Checked first, because most queues have no calls and `settle` runs for many changes."""


async def _list_abandoned(connection: Changes) -> list[int]:
    """Return the active items whose caller is not waiting."""
    return [row[0] for row in await _ABANDONED.rows(connection)]


def _without_caller() -> PreparedStatement:
    caller = session_queue.alias("caller").c
    waits = select(caller.item_id).where(caller.item_id == columns.parent_item_id, caller.status == "waiting")
    called = select(columns.item_id).where(columns.parent_item_id.is_not(None), columns.status.in_(ACTIVE))
    return PreparedStatement(called.where(~waits.exists()))


_ABANDONED = _without_caller()


_WAITING = PreparedStatement(
    select(columns.item_id, *STORED).where(has_status(columns, "waiting")).order_by(columns.item_id)
)


class _CalledItem(NamedTuple):
    """An item of a call."""

    item_id: int
    status: str
    error_message: str | None


async def _list_called(connection: Changes, item_id: int, call_id: str) -> list[_CalledItem]:
    return [_CalledItem(*row) for row in await _CALLED.rows(connection, item_id=item_id, call_id=call_id)]


_CALLED = PreparedStatement(
    select(columns.item_id, columns.status, columns.error_message)
    .where(columns.parent_item_id == parameter("item_id"), columns.workflow_call_id == parameter("call_id"))
    .order_by(columns.item_id)
)


async def _advance_or_fail(connection: Changes, item_id: int, stored: Sequence[Any]) -> list[Event]:
    """Advance a waiting item; one whose session cannot be read fails, as otherwise no item of a call could end.

    A node pack may have been removed meanwhile, for example, or a row, its own or of an item it called, is damaged.
    """
    try:
        return await _advance(connection, item_id, assemble_session(*stored))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        _log.exception("item %s cannot be continued", item_id, extra={"action": "settle_calls", "item_id": item_id})
        message = f"the item cannot be continued after its call: {error}"
        item = await store.set_status(connection, item_id, "failed", (type(error).__name__, message, message))
        return [await status_event(connection, item)] if item else []


async def _advance(connection: Changes, item_id: int, session: str) -> list[Event]:
    """Resume, fail or cancel a waiting item, if the statuses of the items it called determine it."""
    execution = orjson.loads(session).get("waiting_workflow_call_execution") or {}
    called = await _list_called(connection, item_id, execution.get("id", ""))
    statuses = [child.status for child in called]
    if "failed" in statuses:
        first = next(child for child in called if child.status == "failed")
        return await _fail(connection, item_id, session, f"The called workflow failed: {first.error_message}")
    if "canceled" in statuses or len(called) < execution.get("expected_child_count", 1):
        canceled = await store.set_status(connection, item_id, "canceled")
        return [await status_event(connection, canceled)] if canceled else []
    if any(status != "completed" for status in statuses):
        return []
    try:
        returned = [await _get_return_values(connection, child.item_id) for child in called]
        return await _resume(connection, item_id, session, [child.item_id for child in called], returned)
    except CallFailed as error:
        return await _fail(connection, item_id, session, str(error))


async def _get_return_values(connection: Changes, item_id: int) -> dict[str, Any]:
    """Return the values that a called item returned. Raises CallFailed unless its workflow returned exactly once."""
    text = await store.get_session(connection, item_id)
    session = orjson.loads(text or "{}")
    nodes = session.get("execution_graph", {}).get("nodes", {})
    results = session.get("results", {}).items()
    outputs = [output["values"] for copy_id, output in results if nodes[copy_id]["type"] == RETURN]
    if len(outputs) != 1:
        raise CallFailed(f"The called workflow returned {len(outputs)} times, not once")
    return dict(outputs[0])


def _aggregate(returned: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the values of a single session, or for each key the list of the values of several sessions, in order."""
    if len(returned) == 1:
        return returned[0]
    keys = list(returned[0])
    if any(set(values) != set(keys) for values in returned):
        raise CallFailed("The runs of the called workflow returned different keys")
    return {key: [values[key] for values in returned] for key in keys}


async def _resume(
    connection: Changes, item_id: int, session: str, item_ids: list[int], returned: list[dict[str, Any]]
) -> list[Event]:
    """Set the output of the calling node and set its item to pending."""
    values = _aggregate(returned)
    state = GraphExecutionState.model_validate_json(session)
    execution = _end_call(state, "completed")
    execution.completed_child_item_ids = item_ids
    execution.child_outputs = dict(zip(execution.child_session_ids, returned, strict=True))
    execution.aggregated_values = values if len(returned) > 1 else {}
    output = registry.output_validator().validate_python({"type": RETURNED, "values": values})
    state.complete(execution.prepared_call_node_id, output)
    await store.save_session(connection, item_id, state.rest_json())
    item = await store.set_status(connection, item_id, "pending")
    if item is None:
        return []
    complete_event = InvocationCompleteEvent(**_of_node(item, state, execution), result=output.model_dump(mode="json"))
    return [complete_event, await status_event(connection, item)]


async def _fail(connection: Changes, item_id: int, session: str, message: str) -> list[Event]:
    """Fail the calling node and its item."""
    state = GraphExecutionState.model_validate_json(session)
    execution = _end_call(state, "failed")
    execution.error_message = message
    state.set_node_error(execution.prepared_call_node_id, f"ValueError: {message}")
    await store.save_session(connection, item_id, state.rest_json())
    item = await store.set_status(connection, item_id, "failed", ("ValueError", message, message))
    if item is None:
        return []
    errors = {"error_type": "ValueError", "error_message": message, "error_traceback": message}
    return [await status_event(connection, item), InvocationErrorEvent(**_of_node(item, state, execution), **errors)]


def _end_call(state: GraphExecutionState, status: Any) -> WorkflowCallExecution:
    """Move the call that a session waits for to its history and return it."""
    execution = state.waiting_workflow_call_execution
    assert execution is not None
    execution.status = status
    state.workflow_call_history.append(execution)
    state.workflow_call_stack.pop()
    state.waiting_workflow_call = state.waiting_workflow_call_execution = None
    return execution


def _of_node(item: Item, state: GraphExecutionState, execution: WorkflowCallExecution) -> dict[str, Any]:
    """Return the fields shared by the events of the calling node."""
    shared = ("queue_id", "item_id", "batch_id", "origin", "destination", "user_id", "session_id")
    node = state.execution_graph.nodes[execution.prepared_call_node_id]
    return {
        **{name: getattr(item, name) for name in shared},
        "invocation": node.model_dump(mode="json"),
        "invocation_source_id": execution.source_call_node_id,
    }


async def forget_devices(connection: Changes) -> None:
    """Let any worker take the resumed items: after a restart no worker has cached data of theirs, except joined ones."""
    await _FORGET_DEVICES.rows(connection)


_FORGET_DEVICES = PreparedStatement(
    update(session_queue)
    .where(has_status(columns, "pending"), columns.device.is_not(None), NOT_JOINED)
    .values(device=None)
)
