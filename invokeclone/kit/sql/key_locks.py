"""Locks of this process by key."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from hashlib import blake2b
from weakref import WeakValueDictionary


def key_of(name: str) -> int:
    """Return the key for a name, a signed number of 64 bits."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)


class KeyLocks:
    """A lock for each key, which exists while it is used."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def hold(self, keys: Iterable[int]) -> AsyncIterator[None]:
        """Hold the locks of `keys` in the block, waiting for them in ascending order."""
        async with contextlib.AsyncExitStack() as stack:
            for key in sorted(set(keys)):
                await stack.enter_async_context(self._locks.setdefault(key, asyncio.Lock()))
            yield
