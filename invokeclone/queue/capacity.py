"""Capacity for new items: what the queue and the user's quota leave."""

from dataclasses import dataclass
from typing import ClassVar

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import TooMany
from invokeclone.kit.sql.transactions import Changes
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

    def check(self, requested: int, *, whole: bool) -> None:
        """Raise the reason if not all of the requested items fit (`whole`), or if the user's quota is used up.

        A full queue is no error for a part: fewer items are enqueued than requested, possibly none.
        """
        is_used_up = not self.items and isinstance(self.reason, PendingQuotaReached)
        if requested > self.items and (whole or is_used_up):
            raise self.reason


async def measure(connection: Changes, settings: Settings, pending: int, user_id: str) -> Capacity:
    """Return the capacity of a queue with `pending` items for a user. Raises DailyQuotaReached."""
    free = max(settings.max_queue_size - pending, 0)
    allowance = await quotas.allowance(connection, settings, user_id)
    if allowance is None or free <= allowance.items:
        return Capacity(free, QueueFull())
    return Capacity(allowance.items, PendingQuotaReached(allowance.quota))
