"""SQL of the queue: insert items, read items, change their status.

A change of status is one statement that increments `status_sequence`, sets the timestamps, and does not change items
that have ended.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from invokeclone.kit.errors import NotFound
from invokeclone.kit.sql.prepared_statements import Source, dialect_of, json_list, run_many
from invokeclone.kit.sql.transactions import Changes
from invokeclone.kit.times import now
from invokeclone.queue import bulk_counts, outbox, statements
from invokeclone.queue.bulk_counts import CountKey
from invokeclone.queue.reorder import PendingItem
from invokeclone.queue.rows import ClaimedItem, Item, item_json, to_claimed_item, to_item
from invokeclone.queue.schemas import TERMINAL, Status
from invokeclone.queue.sessions import MARK, DamagedSession, assemble_session, compress_state, new_session
from invokeclone.webhooks.outbox import read_subscriptions

CHUNK_ITEMS = 250
"""Items per chunk of a streamed list."""
LEASE_S = 30
"""Seconds after which a claim ends unless it is renewed (`leases.py`)."""


class QueueItemNotFound(NotFound):
    """The queue has no such item."""

    def __init__(self, queue_id: str, item_id: int) -> None:
        super().__init__(f"Queue {queue_id} has no item {item_id}")


# Pending items


async def list_pending(source: Source, queue_id: str) -> list[int]:
    """Return the ids of the pending items in the order in which they run."""
    return [row[0] for row in await statements.PENDING_IDS.rows(source, queue_id=queue_id)]


async def list_pending_items(source: Source, queue_id: str) -> list[PendingItem]:
    """Return the pending items in the order in which they run, with what it depends on."""
    return [PendingItem(*row) for row in await statements.PENDING_ITEMS.rows(source, queue_id=queue_id)]


async def set_priorities(connection: Changes, priorities: Mapping[int, int]) -> None:
    """Set the priorities of items, by id, that are still pending."""
    at = now()
    rows = [(priority, at, item_id) for item_id, priority in priorities.items()]
    await run_many(connection, statements.SET_PRIORITY, rows)


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
    rest: str | None = None,
) -> Item | None:
    """Set the status of an active item, its error (class, message, traceback) if it failed, and its session's `rest`.

    Writes the webhook events of an item that ends. Returns None, without a change, if the item has ended or is deleted, or
    if it was claimed again since the claim with `fence`.
    """
    kind, message, traceback = error or (None, None, None)
    values: dict[str, Any] = {"with_error_type": kind, "with_error_message": message, "with_error_traceback": traceback}
    statement = statements.SET_STATUS[status]
    if rest is not None:
        statement = statements.SET_STATUS_AND_SESSION[status]
        values |= {"rest": rest, "packed": _compress(connection, rest)}
    row = await statement.first(connection, item_id=item_id, at=now(), with_fence=fence, **values)
    if row is None:
        return None
    if status not in TERMINAL:
        return to_item(row)
    *record, subscriptions = row
    item = to_item(tuple(record))
    if webhooks_by_event := read_subscriptions(subscriptions):
        await outbox.record_item(connection, item, webhooks_by_event)
    return item


async def find_ended(
    source: Source, item_id: int, status: Status, error: tuple[str, str, str] | None, fence: int | None
) -> Item | None:
    """Return an item that the claim with `fence` has completed or failed with this result; None if there is none.

    A canceled item is not returned: its user may have ended it.
    """
    if fence is None or status not in ("completed", "failed"):
        return None
    row = await statements.RECORD_OF_CLAIM.first(source, item_id=item_id, with_fence=fence)
    item = to_item(row) if row else None
    if item and (item.status, item.error) == (status, error or (None, None, None)):
        return item
    return None


def _compress(connection: Changes, rest: str) -> bytes | None:
    """Return a session's rest as SQLite stores it."""
    return compress_state(rest) if dialect_of(connection) == "sqlite" else None


async def save_session(connection: Changes, item_id: int, rest: str, *, fence: int | None = None) -> None:
    """Save the part of a session's JSON after the graph; without effect if the item is deleted or has another fence."""
    await statements.SAVE_SESSION.rows(
        connection, item_id=item_id, rest=rest, packed=_compress(connection, rest), at=now(), with_fence=fence
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
        try:
            session = assemble_session(*stored)
        except DamagedSession:  # it fails once it is claimed
            session = ""
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
