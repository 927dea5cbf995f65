"""The queue's statements that run for every request or every item, prepared; `store` gives them their meaning.

Parameters are named after what they are compared with: `queue_id`, `item_id`; `asked` is a JSON array of ids, `at` a time.
"""

from typing import Any

from sqlalchemy import ColumnElement, Select, func, not_, or_, select, update

from invokeclone.images.moves_store import MOVING
from invokeclone.kit.prepared import Prepared, parameter
from invokeclone.queue.counts import PAUSED
from invokeclone.queue.rows import (
    CLAIMED,
    ITEMS,
    ITEMS_WITHOUT_NULLS,
    RECORD,
    SUMMARIES,
    VISIBLE,
    columns,
)
from invokeclone.queue.schemas import ACTIVE, STATUSES, TERMINAL, Status
from invokeclone.tables import app_state, session_queue

INSERT = """
    INSERT INTO session_queue (
        session_id, session, field_values, queue_id, batch_id, priority, origin, destination, user_id, workflow,
        created_at, updated_at
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
"""In the driver's own words: a thousand rows cost a third of what they do through SQLAlchemy's parameters."""

IN_QUEUE = columns.queue_id == parameter("queue_id")
IS_ITEM = columns.item_id == parameter("item_id")
PENDING = columns.status == "pending"


def _in_order(query: Select[Any], *more: ColumnElement[bool]) -> Select[Any]:
    asked = func.json_each(parameter("asked")).table_valued("key", "value", name="asked")
    return query.where(columns.item_id == asked.c.value, *more).order_by(asked.c.key)


COUNT_PENDING = Prepared(select(func.count(), func.max(columns.priority)).where(IN_QUEUE, PENDING))
BATCH_IDS = Prepared(
    select(columns.item_id).where(columns.batch_id == parameter("batch_id"), IN_QUEUE).order_by(columns.item_id.desc())
)
RECORD_OF_ONE = Prepared(select(*RECORD).where(IS_ITEM, IN_QUEUE))
RECORDS_IN_ORDER = Prepared(_in_order(select(*RECORD)))
STATUS_OF_ONE = Prepared(select(columns.status).where(IS_ITEM))
GRAPH_OF_ONE = Prepared(select(func.json_extract(columns.session, "$.graph")).where(IS_ITEM))
SESSION_OF_ONE = Prepared(select(columns.session).where(IS_ITEM))

ONE = Prepared(ITEMS.where(IS_ITEM, IN_QUEUE))
ONE_WITHOUT_NULLS = Prepared(ITEMS_WITHOUT_NULLS.where(IS_ITEM, IN_QUEUE))
CURRENT = Prepared(ITEMS.where(IN_QUEUE, columns.status == "in_progress").order_by(VISIBLE.desc()).limit(1))
NEXT = Prepared(ITEMS.where(IN_QUEUE, PENDING).order_by(columns.priority.desc(), columns.created_at).limit(1))

_LISTED = ITEMS.where(IN_QUEUE).order_by(columns.priority.desc(), columns.item_id)
ALL = Prepared(_LISTED)
ALL_WITH_DESTINATION = Prepared(_LISTED.where(columns.destination == parameter("destination"), VISIBLE))
ITEMS_IN_ORDER = Prepared(_in_order(ITEMS, IN_QUEUE))
SUMMARIES_IN_ORDER = Prepared(_in_order(SUMMARIES, IN_QUEUE))

_IDS = select(columns.item_id).where(IN_QUEUE)
NEWEST = Prepared(_IDS.order_by(columns.created_at.desc(), columns.item_id))
OLDEST = Prepared(_IDS.order_by(columns.created_at, columns.item_id))


def became(status: Status, at: Any) -> dict[str, Any]:
    """Return what every change of status sets; errors are cleared."""
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
    return values


_ERRORS = {name: parameter(f"with_{name}") for name in ("error_type", "error_message", "error_traceback")}

SET_STATUS = {
    status: Prepared(
        update(session_queue)
        .where(IS_ITEM, columns.status.in_(ACTIVE))
        .values(became(status, parameter("at")) | _ERRORS)
        .returning(*RECORD)
    )
    for status in STATUSES
}
"""Changes an active item; `with_error_type`, `with_error_message`, `with_error_traceback` may be given."""

SAVE_SESSION = Prepared(
    update(session_queue).where(IS_ITEM).values(session=parameter("text"), updated_at=parameter("at"))
)


def _claim(chosen: Select[Any]) -> Prepared:
    """Give the chosen item to device `on`, unless the workers are paused or images are being moved."""
    paused = select(app_state.c.key).where(app_state.c.key.in_((PAUSED, MOVING))).exists()
    return Prepared(
        update(session_queue)
        .where(columns.item_id == chosen.scalar_subquery(), not_(paused))
        .values(became("in_progress", parameter("at")) | {"device": parameter("on")})
        .returning(*CLAIMED)
    )


def _free_for(device: ColumnElement[Any], on: Any) -> ColumnElement[bool]:
    """Match items that never ran, and those that go on after a call: only their own worker has what they kept."""
    return or_(device.is_(None), device == on)


def _foremost() -> Select[Any]:
    pending = session_queue.alias("candidates").c
    first = select(pending.item_id).where(pending.status == "pending", _free_for(pending.device, parameter("on")))
    return first.order_by(pending.priority.desc(), pending.item_id).limit(1)


def _longest_unserved() -> Select[Any]:
    pending, served = session_queue.alias("candidates").c, session_queue.alias("served").c
    turn = func.row_number().over(partition_by=pending.user_id, order_by=(pending.priority.desc(), pending.item_id))
    free = pending.status == "pending", _free_for(pending.device, parameter("on"))
    best = select(pending.item_id, pending.user_id, turn.label("turn")).where(*free).subquery()
    ever = served.started_at.is_not(None)
    last = select(func.max(served.started_at)).where(served.user_id == best.c.user_id, ever).scalar_subquery()
    return select(best.c.item_id).where(best.c.turn == 1).order_by(func.coalesce(last, ""), best.c.item_id).limit(1)


CLAIM = _claim(_foremost())
CLAIM_IN_TURN = _claim(_longest_unserved())
