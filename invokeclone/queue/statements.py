"""Prepared statements of the queue, used by `store`.

Parameters have the names of the columns they are compared with; `asked` is a JSON array of item ids, `at` the current
time, `on` a device, `with_fence` the fence of a claim or null for any.
"""

from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Integer,
    ScalarSelect,
    Select,
    Text,
    and_,
    case,
    column,
    delete,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    type_coerce,
    update,
)
from sqlalchemy.dialects.sqlite import insert

from invokeclone.images.relocation.store import MOVING
from invokeclone.kit.sql.functions import ByDatabase, database_now_plus
from invokeclone.kit.sql.prepared_statements import DialectSql, PreparedStatement, members, parameter
from invokeclone.queue.counts import PAUSED
from invokeclone.queue.rows import (
    CLAIMED,
    ITEMS,
    ITEMS_WITHOUT_NULLS,
    RECORD,
    SUMMARIES,
    VISIBLE,
    columns,
    has_status,
)
from invokeclone.queue.schemas import ACTIVE, STATUSES, TERMINAL, Status
from invokeclone.queue.sessions import STORED
from invokeclone.tables import app_state, session_graphs, session_queue
from invokeclone.webhooks.outbox import SUBSCRIPTIONS

_COPIED = ("batch_id", "priority", "origin", "destination", "user_id", "field_values", "workflow", "graph_id")


def _repeat() -> PreparedStatement:
    """Insert a copy of an item with session `session_id`; return its queue and the columns of its CountKey.

    `before` and `after` are the JSON around the graph, for an item that stores its whole session.
    """
    before, after = [type_coerce(parameter(name), Text) for name in ("before", "after")]
    whole_session = before + func.json_extract(columns.session, "$.graph") + after
    values: dict[str, ColumnElement[Any]] = {
        "session_id": parameter("session_id"),
        "session": case((columns.graph_id.is_(None), whole_session), else_=literal("")),
        "status": literal("pending"),
        "status_sequence": literal(0),
        "created_at": parameter("at"),
        "updated_at": parameter("at"),
        "retried_from_item_id": func.coalesce(columns.retried_from_item_id, columns.item_id),
    }
    values |= {name: columns[name] for name in ("queue_id", *_COPIED, "graph_values")}
    copied = select(*values.values()).where(columns.item_id == parameter("item_id"))
    counted = (columns.queue_id, columns.batch_id, columns.destination, columns.user_id, columns.status)
    return PreparedStatement(insert(session_queue).from_select(list(values), copied).returning(*counted))


REPEAT = _repeat()
PAUSE = PreparedStatement(
    insert(app_state).values(key=literal_column(f"'{PAUSED}'"), value=literal_column("'1'")).on_conflict_do_nothing()
)
RESUME = PreparedStatement(delete(app_state).where(app_state.c.key == literal_column(f"'{PAUSED}'")))


def _text(name: str) -> ColumnElement[str]:
    return type_coerce(parameter(name), Text)


IN_QUEUE = columns.queue_id == parameter("queue_id")
HAS_FENCE = columns.fence == func.coalesce(parameter("with_fence"), columns.fence)
IS_ITEM = columns.item_id == parameter("item_id")
PENDING = has_status(columns, "pending")


def _in_order(query: Select[Any], *conditions: ColumnElement[bool]) -> Select[Any]:
    id_table = func.json_each_integer(parameter("asked")).table_valued("key", column("value", Integer), name="asked")
    return query.where(columns.item_id == id_table.c.value, *conditions).order_by(id_table.c.key)


PENDING_IDS = PreparedStatement(
    select(columns.item_id).where(IN_QUEUE, PENDING).order_by(columns.priority.desc(), columns.item_id)
)
PENDING_ITEMS = PreparedStatement(
    select(columns.item_id, columns.priority, columns.user_id)
    .where(IN_QUEUE, PENDING)
    .order_by(columns.priority.desc(), columns.item_id)
)
SET_PRIORITY = DialectSql(
    sqlite="UPDATE session_queue SET priority = ?, updated_at = ? WHERE item_id = ? AND status = 'pending'",
    postgresql="""
    UPDATE session_queue SET priority = item.priority, updated_at = item.at
    FROM unnest(CAST($1 AS integer[]), CAST($2 AS text[]), CAST($3 AS bigint[])) AS item (priority, at, item_id)
    WHERE session_queue.item_id = item.item_id AND session_queue.status = 'pending'
    """,
)
"""For each item its priority, the time and its id."""
BATCH_IDS = PreparedStatement(
    select(columns.item_id).where(columns.batch_id == parameter("batch_id"), IN_QUEUE).order_by(columns.item_id.desc())
)
RECORD_OF_ONE = PreparedStatement(select(*RECORD).where(IS_ITEM, IN_QUEUE))
RECORD_OF_CLAIM = PreparedStatement(select(*RECORD).where(IS_ITEM, HAS_FENCE))
RECORDS_IN_ORDER = PreparedStatement(_in_order(select(*RECORD)))
RECORDS_OF_BATCHES = PreparedStatement(
    select(*RECORD).where(columns.batch_id.in_(members("batch_ids"))).order_by(columns.item_id)
)
ROOTS_IN_ORDER = PreparedStatement(_in_order(select(func.coalesce(columns.root_item_id, columns.item_id))))
STATUS_OF_ONE = PreparedStatement(select(columns.status).where(IS_ITEM, HAS_FENCE))
SESSION_OF_ONE = PreparedStatement(select(*STORED).where(IS_ITEM))


def _chain() -> Select[Any]:
    """Select the ids of an item, of the first item of its call chain, and of all items called from there."""
    begin = select(func.coalesce(columns.root_item_id, columns.item_id).label("item_id")).where(IS_ITEM)
    chain, called = begin.cte("chain", recursive=True), session_queue.alias("called").c
    further = select(called.item_id).where(called.parent_item_id == chain.c.item_id)
    chain = chain.union(select(columns.item_id).where(IS_ITEM), further)
    present = session_queue.alias("present").c
    return select(present.item_id).where(present.item_id == chain.c.item_id).order_by(present.item_id)


CHAIN = PreparedStatement(_chain())

ONE = PreparedStatement(ITEMS.where(IS_ITEM, IN_QUEUE))
ONE_WITHOUT_NULLS = PreparedStatement(ITEMS_WITHOUT_NULLS.where(IS_ITEM, IN_QUEUE))
CURRENT = PreparedStatement(ITEMS.where(IN_QUEUE, has_status(columns, "in_progress")).order_by(VISIBLE.desc()).limit(1))
NEXT = PreparedStatement(ITEMS.where(IN_QUEUE, PENDING).order_by(columns.priority.desc(), columns.item_id).limit(1))

_LISTED = select(columns.item_id).where(IN_QUEUE).order_by(columns.priority.desc(), columns.item_id)
ALL = PreparedStatement(_LISTED)
ALL_WITH_DESTINATION = PreparedStatement(_LISTED.where(columns.destination == parameter("destination"), VISIBLE))
ITEMS_IN_ORDER = PreparedStatement(_in_order(ITEMS, IN_QUEUE))
SUMMARIES_IN_ORDER = PreparedStatement(_in_order(SUMMARIES, IN_QUEUE))

_IDS = select(columns.item_id).where(IN_QUEUE)
NEWEST = PreparedStatement(_IDS.order_by(columns.created_at.desc(), columns.item_id))
OLDEST = PreparedStatement(_IDS.order_by(columns.created_at, columns.item_id))


def status_values(status: Status, at: Any) -> dict[str, Any]:
    """Return the column values of a change of status; errors are cleared, and the lease if the item ends."""
    values: dict[str, Any] = {
        "status": status,
        "status_sequence": columns.status_sequence + 1,
        "updated_at": at,
        "error_type": None,
        "error_message": None,
        "error_traceback": None,
    }
    if status == "in_progress":
        values["started_at"] = at
    if status in TERMINAL:
        values["completed_at"] = at
        values["lease_expires_at"] = None
    return values


_ERRORS = {name: parameter(f"with_{name}") for name in ("error_type", "error_message", "error_traceback")}

_GRAPH = func.json_extract(columns.session, "$.graph")
_BEGINNING = literal('{"id":"') + columns.session_id + literal('","graph":') + _GRAPH
_STATE = ByDatabase(sqlite=parameter("packed"), postgresql=_text("rest"))
"""PostgreSQL compresses long texts itself."""
_SESSION = {"session": case((columns.graph_id.is_(None), _BEGINNING + _text("rest")), else_=_STATE)}
"""Replaces the part of the session after the graph, given as text (`rest`) and as `sessions` stores it (`packed`)."""
SAVE_SESSION = PreparedStatement(
    update(session_queue).where(IS_ITEM, HAS_FENCE).values(_SESSION | {"updated_at": parameter("at")})
)


def _set_status(status: Status, other_values: dict[str, Any]) -> PreparedStatement:
    """Change the status of an active item; return its record and, if it ends, its owner's webhooks."""
    values = status_values(status, parameter("at")) | _ERRORS | other_values
    statement = update(session_queue).where(IS_ITEM, columns.status.in_(ACTIVE), HAS_FENCE).values(values)
    return PreparedStatement(statement.returning(*RECORD, *([SUBSCRIPTIONS] if status in TERMINAL else [])))


SET_STATUS = {status: _set_status(status, {}) for status in STATUSES}
"""Parameters: `with_error_type`, `with_error_message`, `with_error_traceback`."""
SET_STATUS_AND_SESSION = {status: _set_status(status, _SESSION) for status in STATUSES}
"""The same with the parameters of SAVE_SESSION."""


_CLAIM = {
    "device": parameter("on"),
    "worker_id": parameter("worker_id"),
    "fence": columns.fence + 1,
    "lease_expires_at": database_now_plus(parameter("lease_s")),
}


def _claim(item_id: Any) -> PreparedStatement:
    """Claim an item for device `on` and `worker_id`, unless the workers are paused or images are being moved."""
    paused = select(app_state.c.key).where(app_state.c.key.in_((PAUSED, MOVING))).exists()
    return PreparedStatement(
        update(session_queue)
        .where(columns.item_id == item_id, columns.status == "pending", not_(paused))
        .values(status_values("in_progress", parameter("at")) | _CLAIM)
        .returning(*CLAIMED)
    )


def _is_claimable(item: Any) -> ColumnElement[bool]:
    """Match pending items that `worker_id` may claim on device `on`: new ones, and those it resumes after a workflow call.

    Only that worker has the cached data of a resumed item; another server may have a device of the same name. The
    subquery keeps other columns than those of the indexes out of the search for new items.
    """
    resumed_item = session_queue.alias("resumed").c
    by_worker = or_(resumed_item.worker_id == parameter("worker_id"), resumed_item.lease_expires_at.is_(None))
    resumed = (
        select(resumed_item.item_id)
        .where(resumed_item.item_id == item.item_id, by_worker)
        .correlate(item.item_id.table)
        .exists()
    )
    return and_(has_status(item, "pending"), or_(item.device.is_(None), and_(item.device == parameter("on"), resumed)))


def _first_candidate() -> ScalarSelect[Any]:
    item = session_queue.alias("candidates").c
    return (
        select(item.item_id)
        .where(_is_claimable(item))
        .order_by(item.priority.desc(), item.item_id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )


def _pending_users() -> CTE:
    """Select each user with pending items once, with one index lookup per user, and a null at the end."""
    first, further = session_queue.alias("first").c, session_queue.alias("further").c
    lowest = select(first.user_id).where(has_status(first, "pending")).order_by(first.user_id).limit(1)
    users = select(lowest.scalar_subquery().label("user_id")).cte("in_line", recursive=True)
    following = select(further.user_id).where(has_status(further, "pending"), further.user_id > users.c.user_id)
    following = following.order_by(further.user_id).limit(1).correlate(users)
    return users.union_all(select(following.scalar_subquery()).where(users.c.user_id.is_not(None)))


def _round_robin_candidate() -> ScalarSelect[Any]:
    item, served, users = session_queue.alias("candidates").c, session_queue.alias("served").c, _pending_users()
    user_items = select(item.item_id).where(_is_claimable(item), item.user_id == users.c.user_id)
    best = user_items.order_by(item.priority.desc(), item.item_id).limit(1).correlate(users).scalar_subquery()
    ever = served.started_at.is_not(None)
    last = select(func.max(served.started_at)).where(served.user_id == users.c.user_id, ever).correlate(users)
    user_candidates = select(best.label("item_id"), func.coalesce(last.scalar_subquery(), "").label("served"))
    candidates = user_candidates.select_from(users).subquery("turns").c
    locked = session_queue.alias("locked").c
    next_item = (
        select(locked.item_id)
        .where(locked.item_id == candidates.item_id, has_status(locked, "pending"))
        .order_by(candidates.served, candidates.item_id)
    )
    return next_item.limit(1).with_for_update(skip_locked=True, of=locked.item_id).scalar_subquery()


def _peers(item_id: ScalarSelect[Any]) -> PreparedStatement:
    """Select id and session of an item and of the items that may be claimed instead of it, in order."""
    item, peer = session_queue.alias("chosen").c, session_queue.alias("peers").c
    near = peer.item_id.between(item.item_id, item.item_id + AFFINITY_REACH)
    alike = peer.user_id == item.user_id, peer.priority == item.priority
    template = select(session_graphs.c.template).where(session_graphs.c.graph_id == peer.graph_id).scalar_subquery()
    stored = (peer.session_id, peer.session, template, peer.graph_values)
    query = select(peer.item_id, *stored).where(item.item_id == item_id, *alike, near, _is_claimable(peer))
    return PreparedStatement(query.order_by(peer.item_id))


AFFINITY_REACH = 32
"""Maximum distance in ids by which an item may be claimed early because of model affinity."""

CLAIM = _claim(_first_candidate())
CLAIM_ROUND_ROBIN = _claim(_round_robin_candidate())
_UNLOCKED = session_queue.alias("unlocked").c
CLAIM_ONE = _claim(
    ByDatabase(
        sqlite=parameter("item_id"),
        postgresql=select(_UNLOCKED.item_id)
        .where(_UNLOCKED.item_id == parameter("item_id"))
        .with_for_update(skip_locked=True)
        .scalar_subquery(),
    )
)
"""Claims an item unless another transaction has locked it: a claim that waited could be part of a deadlock."""

PEERS = _peers(_first_candidate())
PEERS_ROUND_ROBIN = _peers(_round_robin_candidate())
