"""SQL of the queue: insert items, read items, change their status.

A change of status is one statement that increments `status_sequence`, sets the timestamps, and does not change items
that have ended.
"""

import itertools
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

from invokeclone.kit.errors import NotFound
from invokeclone.kit.sql.prepared_statements import Source, dialect_of, json_list, run, run_many
from invokeclone.kit.sql.transactions import Changes
from invokeclone.kit.times import now
from invokeclone.queue import bulk_counts, outbox, statements
from invokeclone.queue.batches import NewItem
from invokeclone.queue.bulk_counts import CountKey
from invokeclone.queue.reorder import PendingItem
from invokeclone.queue.rows import ClaimedItem, Item, item_json, to_claimed_item, to_item
from invokeclone.queue.schemas import TERMINAL, Status
from invokeclone.queue.sessions import MARK, assemble_session, compress_state, new_session
from invokeclone.webhooks.outbox import lock_of_item

CHUNK_ITEMS = 250
"""Items per chunk of a streamed list."""
LEASE_S = 30
"""Seconds after which a claim ends unless it is renewed (`leases.py`)."""


class QueueItemNotFound(NotFound):
    """The queue has no such item."""

    def __init__(self, queue_id: str, item_id: int) -> None:
        super().__init__(f"Queue {queue_id} has no item {item_id}")


# Inserting


async def add(
    connection: Changes,
    items: Iterable[NewItem],
    *,
    queue_id: str,
    batch_id: str,
    priority: int,
    origin: str | None,
    destination: str | None,
    user_id: str,
    workflow: str | None,
) -> list[int]:
    """Insert new pending items of one graph with different values; return their ids in order.

    Items are generated in the database thread, so that the event loop is not blocked and not all texts are in memory.
    """
    at, items = now(), iter(items)
    remaining = list(itertools.islice(items, statements.ITEMS_PER_INSERT))
    if not remaining:
        return []
    graph = await statements.ADD_GRAPH.first(connection, template=remaining[0].template)
    assert graph
    shared = (queue_id, batch_id, priority, origin, destination, user_id, workflow, at, graph[0], at)
    added = 0

    def many() -> Iterator[tuple[Any, ...]]:
        nonlocal remaining, added
        while len(remaining) == statements.ITEMS_PER_INSERT:
            yield (*shared, *_values(remaining))
            added += len(remaining)
            remaining = list(itertools.islice(items, statements.ITEMS_PER_INSERT))

    if len(remaining) == statements.ITEMS_PER_INSERT:
        await run_many(connection, statements.INSERT_MANY, many())
    if remaining:
        added += len(remaining)
        rows = await run(connection, statements.insert_some(len(remaining)), (*shared, *_values(remaining)))
        last = max(row[0] for row in rows)
    else:
        ((last,),) = await statements.LAST_ID.rows(connection)
    await bulk_counts.update_counts(connection, queue_id, {CountKey(batch_id, destination, user_id, "pending"): added})
    return list(range(last - added + 1, last + 1))  # ids are consecutive: no other transaction writes meanwhile


def _values(items: Iterable[NewItem]) -> Iterator[str | None]:
    return itertools.chain.from_iterable(item.row for item in items)


async def count_pending(source: Source, queue_id: str) -> tuple[int, int]:
    """Return the number of pending items of the queue, and their highest priority (0 if there are none)."""
    row = await statements.COUNT_PENDING.first(source, queue_id=queue_id)
    assert row
    return row[0], row[1] or 0


async def list_pending(source: Source, queue_id: str) -> list[int]:
    """Return the ids of the pending items in the order in which they run."""
    return [row[0] for row in await statements.PENDING_IDS.rows(source, queue_id=queue_id)]


async def list_pending_items(source: Source, queue_id: str) -> list[PendingItem]:
    """Return the pending items in the order in which they run, with what it depends on."""
    return [PendingItem(*row) for row in await statements.PENDING_ITEMS.rows(source, queue_id=queue_id)]


async def set_priorities(connection: Changes, priorities: Mapping[int, int]) -> None:
    """Set the priorities of items, by id, that are still pending."""
    at = now()
    for item_id, priority in priorities.items():
        await statements.SET_PRIORITY.rows(connection, item_id=item_id, to_priority=priority, at=at)


async def list_batch(source: Source, queue_id: str, batch_id: str) -> list[int]:
    """Return the ids of all items with this batch id, newest first."""
    return [row[0] for row in await statements.BATCH_IDS.rows(source, queue_id=queue_id, batch_id=batch_id)]


async def repeat(connection: Changes, item_id: int) -> None:
    """Insert a pending retry of an item with a new session; a retry of a retry refers to the original item too."""
    session_id = str(uuid4())
    before, after = new_session(session_id, MARK).split(MARK)
    (kind,) = await statements.REPEAT.rows(
        connection, item_id=item_id, session_id=session_id, before=before, after=after, at=now()
    )
    await bulk_counts.update_counts(connection, kind[0], {CountKey(*kind[1:]): 1})


# Reading


async def get(source: Source, queue_id: str, item_id: int) -> Item:
    """Return the record of an item. Raises QueueItemNotFound if the queue does not have it."""
    row = await statements.RECORD_OF_ONE.first(source, queue_id=queue_id, item_id=item_id)
    if row is None:
        raise QueueItemNotFound(queue_id, item_id)
    return to_item(row)


async def get_status(source: Source, item_id: int, *, fence: int | None = None) -> Status | None:
    """Return the status of an item of any queue, or None if there is no such item, or it has another fence."""
    row = await statements.STATUS_OF_ONE.first(source, item_id=item_id, with_fence=fence)
    return row[0] if row else None


async def list_items(source: Source, item_ids: Sequence[int]) -> list[Item]:
    """Return the records of items of any queue in the given order, each once; unknown ids are skipped."""
    return [
        to_item(row)
        for row in await statements.RECORDS_IN_ORDER.rows(source, asked=json_list(_valid_ids(dict.fromkeys(item_ids))))
    ]


async def list_of_batches(source: Source, batch_ids: Iterable[str]) -> list[Item]:
    """Return the records of all items of some batches of any queue, oldest first."""
    return [to_item(row) for row in await statements.RECORDS_OF_BATCHES.rows(source, batch_ids=json_list(batch_ids))]


async def list_roots(source: Source, item_ids: Sequence[int]) -> list[int]:
    """Return the first items of the call chains of the given items, or the items themselves if they were not called.

    In the given order, each once; unknown ids are skipped.
    """
    rows = await statements.ROOTS_IN_ORDER.rows(source, asked=json_list(_valid_ids(item_ids)))
    return list(dict.fromkeys(row[0] for row in rows))


async def list_chain(source: Source, item_id: int) -> list[int]:
    """Return the ids of all items of an item's call chain, the first item first."""
    return [row[0] for row in await statements.CHAIN.rows(source, item_id=item_id)]


async def get_json(
    source: Source, queue_id: str, item_id: int, *, nulls: bool = True, viewer: str | None = None
) -> str:
    """Return an item as JSON text. Raises QueueItemNotFound if the queue does not have it.

    Here and below: with `viewer`, items of other users are redacted.
    """
    statement = statements.ONE if nulls else statements.ONE_WITHOUT_NULLS
    row = await statement.first(source, queue_id=queue_id, item_id=item_id, viewer=viewer)
    if row is None:
        raise QueueItemNotFound(queue_id, item_id)
    return item_json(row, nulls=nulls)


async def get_session(source: Source, item_id: int) -> str | None:
    """Return the JSON text of an item's session, or None if there is no such item."""
    row = await statements.SESSION_OF_ONE.first(source, item_id=item_id)
    return assemble_session(*row) if row else None


async def current_json(source: Source, queue_id: str, viewer: str | None = None) -> str:
    """Return the JSON text of a running item (the viewer's own, if there is one), or of null."""
    row = await statements.CURRENT.first(source, queue_id=queue_id, viewer=viewer)
    return item_json(row) if row else "null"


async def next_json(source: Source, queue_id: str, viewer: str | None = None) -> str:
    """Return the JSON text of the first pending item, or of null."""
    row = await statements.NEXT.first(source, queue_id=queue_id, viewer=viewer)
    return item_json(row) if row else "null"


async def list_order(
    source: Source, queue_id: str, destination: str | None = None, viewer: str | None = None
) -> list[int]:
    """Return the ids of all items, highest priority first; with `destination`, only items that the viewer may see."""
    if destination is None:
        rows = await statements.ALL.rows(source, queue_id=queue_id)
    else:
        statement = statements.ALL_WITH_DESTINATION
        rows = await statement.rows(source, queue_id=queue_id, destination=destination, viewer=viewer)
    return [row[0] for row in rows]


async def stream_json(
    source: Source, queue_id: str, item_ids: Sequence[int], viewer: str | None = None
) -> AsyncIterator[str]:
    """Yield the text that `get_many_json` returns, in chunks of CHUNK_ITEMS items."""
    separator = "["
    for start in range(0, len(item_ids), CHUNK_ITEMS):
        part = await get_many_json(source, queue_id, item_ids[start : start + CHUNK_ITEMS], viewer)
        if part != "[]":
            yield f"{separator}{part[1:-1]}"
            separator = ","
    yield "[]" if separator == "[" else "]"


async def list_ids(source: Source, queue_id: str, *, newest_first: bool = True) -> list[int]:
    """Return the ids of all items by time of creation; items of one batch are always in ascending order."""
    statement = statements.NEWEST if newest_first else statements.OLDEST
    return [row[0] for row in await statement.rows(source, queue_id=queue_id)]


def _valid_ids(item_ids: Iterable[int]) -> list[int]:
    """Remove numbers that cannot be ids."""
    return [item_id for item_id in item_ids if 0 < item_id < 2**63]


async def get_many_json(source: Source, queue_id: str, item_ids: Sequence[int], viewer: str | None = None) -> str:
    """Return items as a JSON array in the given order; ids that the queue does not have are skipped."""
    id_list = json_list(_valid_ids(item_ids))
    return _array(
        map(item_json, await statements.ITEMS_IN_ORDER.rows(source, queue_id=queue_id, asked=id_list, viewer=viewer))
    )


async def get_summaries_json(source: Source, queue_id: str, item_ids: Sequence[int], viewer: str | None = None) -> str:
    """Return summaries of items, as `get_many_json` returns whole items."""
    id_list = json_list(_valid_ids(item_ids))
    rows = await statements.SUMMARIES_IN_ORDER.rows(source, queue_id=queue_id, asked=id_list, viewer=viewer)
    return _array(row[0] for row in rows)


def _array(texts: Iterable[str]) -> str:
    return f"[{','.join(texts)}]"


# Changes of status


async def set_status(
    connection: Changes,
    item_id: int,
    status: Status,
    error: tuple[str, str, str] | None = None,
    *,
    fence: int | None = None,
) -> Item | None:
    """Set the status of an active item, and its error (class, message, traceback) if it failed.

    Writes the webhook events of an item that ends. Returns None, without a change, if the item has ended or is deleted, or
    if it was claimed again since the claim with `fence`.
    """
    kind, message, traceback = error or (None, None, None)
    errors = {"with_error_type": kind, "with_error_message": message, "with_error_traceback": traceback}
    subscriptions = await lock_of_item(connection, item_id) if status in TERMINAL else {}
    row = await statements.SET_STATUS[status].first(connection, item_id=item_id, at=now(), with_fence=fence, **errors)
    item = to_item(row) if row else None
    if item and subscriptions:
        await outbox.record_item(connection, item, subscriptions)
    return item


async def save_session(connection: Changes, item_id: int, rest: str, *, fence: int | None = None) -> None:
    """Save the part of a session's JSON after the graph; without effect if the item is deleted or has another fence."""
    await statements.SAVE_SESSION.rows(
        connection, item_id=item_id, rest=rest, packed=compress_state(rest), at=now(), with_fence=fence
    )


async def claim(
    connection: Changes,
    device: str,
    *,
    worker_id: str | None = None,
    round_robin: bool = False,
    resident: Collection[str] = (),
) -> ClaimedItem | None:
    """Claim the next pending item of any queue for `device`; None if there is none or the workers are paused.

    The claim is of `worker_id` (by default the device) and has a lease of LEASE_S seconds.

    With `round_robin` the user served longest ago comes first, and priority only orders that user's items; without, it
    orders all items. With `resident`, keys of models loaded on the device, an item of the same user and priority within
    AFFINITY_REACH that uses more of them comes first.
    """
    claim = {"on": device, "worker_id": worker_id or device, "lease_s": LEASE_S, "at": now()}
    if resident:
        peers_statement = statements.PEERS_ROUND_ROBIN if round_robin else statements.PEERS
        peers = await peers_statement.rows(connection, on=device, worker_id=claim["worker_id"])
        item_id = _best_model_match(peers, resident)
        row = await statements.CLAIM_ONE.first(connection, item_id=item_id, **claim) if peers else None
    else:
        row = await (statements.CLAIM_ROUND_ROBIN if round_robin else statements.CLAIM).first(connection, **claim)
    if row is None and dialect_of(connection) == "postgresql":
        # Claims overlap there: another worker may have got the item that this one had selected.
        row = await statements.CLAIM.first(connection, **claim)
    return to_claimed_item(row) if row else None


def _best_model_match(peers: Sequence[tuple[Any, ...]], resident: Collection[str]) -> int | None:
    """Return the id of the first item (id, stored session) whose session contains most of the keys, or None."""
    best, best_count = None, -1
    for item_id, *stored in peers:
        session = assemble_session(*stored)
        mentioned = sum(key in session for key in resident)
        if mentioned > best_count:
            best, best_count = item_id, mentioned
        if best_count == len(resident):
            break
    return best


# Pausing


async def pause(connection: Changes) -> None:
    """Pause the workers; running items are completed."""
    await statements.PAUSE.rows(connection)


async def resume(connection: Changes) -> None:
    """Resume the workers."""
    await statements.RESUME.rows(connection)
