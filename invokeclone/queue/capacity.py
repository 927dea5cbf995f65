"""Capacity for new items: what the queue and the user's quota leave."""

from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import select

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import TooMany
from invokeclone.kit.sql.prepared_statements import PreparedStatement, parameter
from invokeclone.kit.sql.transactions import Changes
from invokeclone.queue import counts
from invokeclone.queue.rows import columns, has_status
from invokeclone.users import quotas
from invokeclone.users.quotas import PendingQuotaReached


class QueueFull(TooMany):
    """The queue has no capacity for the items."""

    headers: ClassVar[dict[str, str]] = {"Retry-After": "30"}

    def __init__(self) -> None:
        super().__init__("the queue is full; try again later (setting max_queue_size)")


@dataclass(frozen=True)
class Capacity:
    """How many items can be enqueued, and what limits them."""

    items: int
    reason: TooMany
    highest_priority: int
    """The highest priority of the queue's pending items, 0 without any."""

    def check(self, requested: int, *, whole: bool) -> None:
        """Raise the reason if not all of the requested items fit (`whole`), or if the user's quota is used up.

        A full queue is no error for a part: fewer items are enqueued than requested, possibly none.
        """
        is_used_up = not self.items and isinstance(self.reason, PendingQuotaReached)
        if requested > self.items and (whole or is_used_up):
            raise self.reason


async def measure(connection: Changes, settings: Settings, queue_id: str, user_id: str) -> Capacity:
    """Return the capacity of a queue for a user, in an exclusive transaction. Raises DailyQuotaReached."""
    row = await _STATE.first(connection, queue_id=queue_id, user_id=user_id)
    assert row
    pending, highest, *of_user = row
    free = max(settings.max_queue_size - pending, 0)
    allowance = await quotas.allowance(connection, settings, user_id, of_user)
    if allowance is None or free <= allowance.items:
        return Capacity(free, QueueFull(), highest or 0)
    return Capacity(allowance.items, PendingQuotaReached(allowance.quota), highest or 0)


_PENDING = (columns.queue_id == parameter("queue_id"), has_status(columns, "pending"))
_HIGHEST = select(columns.priority).where(*_PENDING).order_by(columns.priority.desc()).limit(1)
_STATE = PreparedStatement(select(counts.number_in_queue("pending"), _HIGHEST.scalar_subquery(), *quotas.OF_USER))
"""One statement for everything that usually decides about a new batch."""
