"""Time limit for a worker to stop a canceled item.

The item has one period to reach a checkpoint, where an error is raised, and a second one from there to leave its node.
Heartbeats, and further checkpoints of a node that caught the error, do not extend the deadline.
"""

import asyncio
from collections.abc import Callable


class CancelDeadline:
    """The deadline for the item that one worker runs. Call all methods on the event loop."""

    def __init__(self, overdue: Callable[[int], None]) -> None:
        """Call `overdue` with the item's id when the item has not ended in time."""
        self._overdue = overdue
        self._timer: asyncio.TimerHandle | None = None
        self.item_id: int | None = None
        """Id of the item with a running deadline."""
        self._stopping = False

    def start(self, item_id: int, seconds: float) -> None:
        """Start the first period; does nothing if it has started for this item."""
        if self.item_id != item_id:
            self.clear()
            self.item_id, self._stopping = item_id, False
            self._set(seconds)

    def stopping(self, item_id: int, seconds: float) -> None:
        """Start the second period when the item reaches a checkpoint; does nothing on later calls."""
        if self.item_id == item_id and not self._stopping:
            self._stopping = True
            self._set(seconds)

    def running(self, item_id: int | None) -> None:
        """Update the item that the worker runs; the deadline of any other item is cleared."""
        if item_id != self.item_id:
            self.clear()

    def clear(self) -> None:
        """Clear the deadline."""
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
