"""How long a worker may take to stop an item that was canceled; it knows time and item ids, and nothing of processes.

The item has one period to reach a checkpoint, where it stops by an error, and one more from there to leave its node. That the
process is alive, or that a node which caught the error goes on to other checkpoints, is no progress.
"""

import asyncio
from collections.abc import Callable


class CancelDeadline:
    """The deadline of one worker, for the item it runs. All methods belong on the event loop."""

    def __init__(self, overdue: Callable[[int], None]) -> None:
        """Call `overdue` with the item's id when it has not ended in time."""
        self._overdue = overdue
        self._timer: asyncio.TimerHandle | None = None
        self.item_id: int | None = None
        """The item that is watched."""
        self._stopping = False

    def start(self, item_id: int, seconds: float) -> None:
        """Begin the first period; without effect when it has begun for this item."""
        if self.item_id != item_id:
            self.clear()
            self.item_id, self._stopping = item_id, False
            self._set(seconds)

    def stopping(self, item_id: int, seconds: float) -> None:
        """Begin the second period, as the item has reached a checkpoint; without effect a second time."""
        if self.item_id == item_id and not self._stopping:
            self._stopping = True
            self._set(seconds)

    def running(self, item_id: int | None) -> None:
        """Note what the worker runs now: the deadline of another item is met."""
        if item_id != self.item_id:
            self.clear()

    def clear(self) -> None:
        """Watch nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.item_id = None

    def _set(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        item_id = self.item_id
        self.clear()
        if item_id is not None:
            self._overdue(item_id)
