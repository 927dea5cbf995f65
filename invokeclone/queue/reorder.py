"""Reordering of pending items.

Items run by priority, then by id, so an item is moved by changing priorities: its own, and where its id allows no other
way those of the items that it passes. Users who are not administrators move their items among their own: the places of
other users' items in the order stay the same.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple

from invokeclone.kit.errors import Conflict, Unprocessable


class QueuePosition(NamedTuple):
    """Where items are moved to: before or after an item (`target`), or to the front or the end."""

    side: Literal["before", "after", "front", "end"]
    target: int | None = None


class PendingItem(NamedTuple):
    """What the order of a pending item depends on, and its owner."""

    item_id: int
    priority: int
    user_id: str


class TargetNotPending(Conflict):
    """The item that others should be moved next to does not wait in the queue any more."""

    def __init__(self, item_id: int) -> None:
        super().__init__(f"Item {item_id} is not pending, so no item can be moved next to it")


class TargetMoved(Unprocessable):
    """An item cannot be moved next to itself."""

    def __init__(self, item_id: int) -> None:
        super().__init__(f"Item {item_id} is among the items to move, so they cannot be moved next to it")


def plan(
    order: Sequence[PendingItem], item_ids: Sequence[int], position: QueuePosition, owner: str | None
) -> dict[int, int]:
    """Return the new priorities, by item id, that move items to a position.

    `order` has all pending items in their order. With `owner`, the moved items are that user's and other users' items
    keep their places. Ids that are not pending are ignored. Raises TargetNotPending and TargetMoved.
    """
    indexes = [index for index, item in enumerate(order) if owner is None or item.user_id == owner]
    movable = {order[index].item_id: order[index] for index in indexes}
    moved = [movable[item_id] for item_id in dict.fromkeys(item_ids) if item_id in movable]
    if not moved:
        return {}
    moved_ids = {item.item_id for item in moved}
    if position.target is not None and position.target in moved_ids:
        raise TargetMoved(position.target)
    rest = [item for item in movable.values() if item.item_id not in moved_ids]
    index = _index(rest, position)
    arranged = list(order)
    for slot, item in zip(indexes, [*rest[:index], *moved, *rest[index:]], strict=True):
        arranged[slot] = item
    if owner is not None:  # the places between those of other users have to be reached exactly
        moved_ids = {item.item_id for item, before in zip(arranged, order, strict=True) if item is not before}
    priorities = dict(_priorities(arranged, moved_ids, order[-1].priority))
    return {item.item_id: priorities[item.item_id] for item in order if priorities[item.item_id] != item.priority}


def _index(rest: Sequence[PendingItem], position: QueuePosition) -> int:
    match position.side:
        case "front":
            return 0
        case "end":
            return len(rest)
    for index, item in enumerate(rest):
        if item.item_id == position.target:
            return index + (position.side == "after")
    raise TargetNotPending(position.target or 0)


def _priorities(arranged: Sequence[PendingItem], moved_ids: Collection[int], lowest: int) -> Iterator[tuple[int, int]]:
    """Yield ids with priorities by which the items sort as arranged, last first; kept where that is possible."""
    following_id = 0
    for item in reversed(arranged):
        if following_id and item.item_id > following_id:
            lowest += 1
        if item.item_id not in moved_ids:
            lowest = max(lowest, item.priority)
        yield item.item_id, lowest
        following_id = item.item_id
