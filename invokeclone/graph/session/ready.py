"""Queues of copies that are ready to run, one node class after another so that models are rarely swapped."""

from bisect import insort
from itertools import count


class ReadyQueues:
    """A queue per node class. The active class's queue is emptied before the next class is chosen."""

    def __init__(self, order: list[str]) -> None:
        """Prefer classes in `order`, then by name."""
        self._order = order
        self._queues: dict[str, list[tuple[tuple[int, ...], int, str]]] = {}
        self._count = count()
        self._active: str | None = None

    def __bool__(self) -> bool:
        return bool(self._queues)

    def push(self, class_name: str, path: tuple[int, ...], copy_id: str) -> None:
        """Add a copy; within a class copies are sorted by path, then by order of arrival."""
        insort(self._queues.setdefault(class_name, []), (path, next(self._count), copy_id))

    def choose(self) -> None:
        """Choose the active class, if there is none."""
        if self._queues and self._active not in self._queues:
            preferred = (name for name in self._order if name in self._queues)
            self._active = next(preferred, None) or min(self._queues)

    def pop(self) -> str | None:
        """Remove and return the id of the next copy, or None."""
        self.choose()
        if not self._queues or self._active is None:
            return None
        queue = self._queues[self._active]
        _, _, copy_id = queue.pop(0)
        if not queue:
            del self._queues[self._active]
        return copy_id
