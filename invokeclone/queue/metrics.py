"""Metrics of the queues for `/metrics`, read from counts and indexes on each scrape.

Clients choose the names of queues, so their number is limited.
"""

from datetime import UTC, datetime

from sqlalchemy import CTE, Label, func, literal_column, select

from invokeclone.kit.metrics import Metric, MetricValues
from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source
from invokeclone.queue.rows import columns, has_status
from invokeclone.queue.schemas import STATUSES
from invokeclone.queue.service import DEFAULT_QUEUE
from invokeclone.tables import queue_counts, session_queue

MAX_QUEUES = 50
"""Maximum number of queues, in order of their names; the default queue is always included."""

ITEMS = Metric("invokeclone_queue_items", "gauge", "Items of a queue by status.", ("queue", "status"))
OLDEST = Metric(
    "invokeclone_queue_oldest_pending_age_seconds",
    "gauge",
    "Seconds since the oldest pending item of a queue was enqueued; 0 without one.",
    ("queue",),
)
METRICS = (ITEMS, OLDEST)


def _queues() -> CTE:
    """Select the names of queues from the primary key of the counts, with one index lookup each."""
    counts, other_counts = queue_counts.alias("counts"), queue_counts.alias("others")
    number: Label[int] = literal_column("1").label("number")
    first = select(func.min(counts.c.queue_id).label("queue_id"), number).cte("queues", recursive=True)
    following = (
        select(func.min(other_counts.c.queue_id)).where(other_counts.c.queue_id > first.c.queue_id).scalar_subquery()
    )
    has_more = (first.c.number < literal_column(str(MAX_QUEUES))) & first.c.queue_id.is_not(None)
    return first.union_all(select(following, first.c.number + literal_column("1")).where(has_more))


_QUEUES = _queues()
_COUNTS = PreparedStatement(
    select(_QUEUES.c.queue_id, queue_counts.c.status, func.sum(queue_counts.c.number))
    .join_from(_QUEUES, queue_counts, queue_counts.c.queue_id == _QUEUES.c.queue_id)
    .where(queue_counts.c.scope == literal_column("'queue'"), queue_counts.c.name == literal_column("''"))
    .group_by(_QUEUES.c.queue_id, queue_counts.c.status)
)
_first = (
    select(columns.queue_id, func.min(columns.item_id).label("item_id"))
    .where(has_status(columns, "pending"))
    .group_by(columns.queue_id)
    .subquery("first")
)
_oldest = session_queue.alias("oldest")
_OLDEST = PreparedStatement(
    select(_first.c.queue_id, _oldest.c.created_at).join_from(_first, _oldest, _oldest.c.item_id == _first.c.item_id)
)
"""Ids ascend, so the oldest item has the lowest; the index of pending items covers ids and queues."""


async def measure(source: Source) -> MetricValues:
    """Return the items of every queue by status, and the age of the oldest pending one in seconds."""
    numbers = MetricValues(METRICS)
    counted = await _COUNTS.rows(source)
    oldest: dict[str, str] = dict(await _OLDEST.rows(source))
    queues = dict.fromkeys([DEFAULT_QUEUE, *(queue_id for queue_id, _, _ in counted)])
    for queue_id in queues:
        for status in STATUSES:
            numbers.set(ITEMS, queue_id, status, value=0)
        numbers.set(OLDEST, queue_id, value=_age(oldest[queue_id]) if queue_id in oldest else 0)
    for queue_id, status, number in counted:
        numbers.set(ITEMS, queue_id, status, value=number)
    return numbers


def _age(created_at: str) -> float:
    """Return the seconds since `created_at`, at least 0 in case the clock was set back."""
    try:
        began = datetime.fromisoformat(created_at).replace(tzinfo=UTC)
    except ValueError:
        return 0.0
    return max(0.0, (datetime.now(UTC) - began).total_seconds())
