"""Copies that may run, in the order they should: one node class after another, so that models change seldom.

It knows names of classes and paths of indices, nothing of nodes.
"""

from bisect import insort
from itertools import count


class ReadyQueues:
    """A queue per node class. The class in hand is emptied before the next is chosen."""

    def __init__(self, order: list[str]) -> None:
        """Prefer classes in `order`, then by name."""
        self._order = order
        self._queues: dict[str, list[tuple[tuple[int, ...], int, str]]] = {}
        self._count = count()
        self._active: str | None = None

    def __bool__(self) -> bool:
        return bool(self._queues)

    def push(self, class_name: str, path: tuple[int, ...], copy_id: str) -> None:
        """Add a copy; within its class it stands by path, then by when it came."""
        insort(self._queues.setdefault(class_name, []), (path, next(self._count), copy_id))

    def choose(self) -> None:
        """Take a class in hand, if none is."""
        if self._queues and self._active not in self._queues:
            preferred = (name for name in self._order if name in self._queues)
            self._active = next(preferred, None) or min(self._queues)

    def pop(self) -> str | None:
        """Return the next copy's id, or None."""
        self.choose()
        if not self._queues or self._active is None:
            return None
        queue = self._queues[self._active]
        _, _, copy_id = queue.pop(0)
        if not queue:
            del self._queues[self._active]
        return copy_id
