"""Locks on files, released by the system when the process ends for any reason."""

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on this system
    fcntl = None  # type: ignore[assignment]

POLL_S = 0.2
"""Interval in seconds at which a waiting task tries to get a lock."""
_HELD = frozenset({errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK})


def try_lock(descriptor: int) -> bool:
    """Lock an open file and return whether that succeeded: another process may hold the lock. Raises OSError without locks."""
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


@contextlib.asynccontextmanager
async def hold_lock(file: Path) -> AsyncIterator[None]:
    """Hold a lock between processes and between tasks of this process; waiting can be cancelled."""
    from filelock import FileLock, Timeout

    lock = FileLock(file, thread_local=False)
    while True:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            await asyncio.sleep(POLL_S)
        else:
            break
    try:
        yield
    finally:
        lock.release()
