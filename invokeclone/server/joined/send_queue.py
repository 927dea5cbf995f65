"""The messages that an agent has not sent to its server yet."""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Hashable


class SendQueue:
    """Messages in order. One with a key replaces an unsent one with the same key, so that a slow connection is not filled."""

    def __init__(self) -> None:
        self._lines: OrderedDict[Hashable, bytes] = OrderedDict()
        self._numbers = itertools.count()
        self._changed = asyncio.Event()
        self._is_closed = False
        self.size = 0
        """Bytes of all messages."""

    def add(self, line: bytes, key: Hashable | None = None, *, at_front: bool = False) -> None:
        """Add a message at the end, or `at_front` while none is being sent."""
        if key is None:
            key = next(self._numbers)
        self._discard(key)
        self._lines[key] = line
        if at_front:
            self._lines.move_to_end(key, last=False)
        self.size += len(line)
        self._changed.set()

    def _discard(self, key: Hashable) -> None:
        """Remove the message with a key, if it is not sent yet."""
        self.size -= len(self._lines.pop(key, b""))

    def close(self) -> None:
        """Let `first` return None after the last message."""
        self._is_closed = True
        self._changed.set()

    async def first(self) -> tuple[Hashable, bytes] | None:
        """Wait for a message and return it with its key, None at the end; it stays until `remove`."""
        while not self._lines:
            if self._is_closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        return next(iter(self._lines.items()))

    def remove(self, key: Hashable, line: bytes) -> None:
        """Remove a message that was sent, unless another one with its key has replaced it meanwhile."""
        if self._lines.get(key) is line:
            self._discard(key)
