"""Work on images in threads, bounded: processing takes a core each, and whole files take memory.

A call of the storage needs no core while it waits, so that an outage of the storage holds up no other work on images.
"""

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from anyio import CapacityLimiter

from invokeclone.kit.files.storage_errors import StorageUnreachable
from invokeclone.kit.process.loop_local import LoopLocal
from invokeclone.kit.process.offload import off_loop
from invokeclone.kit.storage.threads import in_storage_thread

Content = TypeVar("Content")
Result = TypeVar("Result")
CORES = os.cpu_count() or 2
WHOLE_FILES = max(4, 2 * CORES)
"""Number of whole files at a time: while some are processed, others are read or written."""


class _WholeFiles:
    def __init__(self) -> None:
        self.places = asyncio.Semaphore(WHOLE_FILES)
        self.outage_at = float("-inf")
        """When a call of the storage last failed because it could not be reached."""


_CORES = LoopLocal("threads that process images", lambda: CapacityLimiter(CORES))
_WHOLE_FILES = LoopLocal("whole files in memory", _WholeFiles)


async def image_work(work: Callable[[], Result]) -> Result:
    """Run blocking work on an image in a thread, one per core at a time, to bound memory and time."""
    return await off_loop(work, _CORES.get())


@contextlib.asynccontextmanager
async def whole_file() -> AsyncIterator[None]:
    """Wait until there is a place for a whole file in memory, which is read from the storage or written to it in the block.

    Raises StorageUnreachable also if the block of another task failed with it meanwhile, so that they do not wait for the
    service one after the other.
    """
    whole_files = _WHOLE_FILES.get()
    began_at = time.monotonic()
    async with whole_files.places:
        if whole_files.outage_at > began_at:
            raise StorageUnreachable(errno.EHOSTUNREACH, "no response in time")
        try:
            yield
        except StorageUnreachable:
            whole_files.outage_at = time.monotonic()
            raise


async def process(read: Callable[[], Content], work: Callable[[Content], Result]) -> Result:
    """Read a whole file from the storage in one thread, run blocking `work` on it in another, and return its result.

    `read` is a method of the stored file: `read`, or `source`, which only opens a local one. Raises OSError.
    """
    async with whole_file():
        content = await in_storage_thread(read)
        return await image_work(lambda: work(content))
