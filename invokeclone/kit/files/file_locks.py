"""A lock on an open file, which the system takes back when the process ends, however it ends."""

import errno
import os

try:
    import fcntl
except ImportError:  # not on this system
    fcntl = None  # type: ignore[assignment]

_HELD = frozenset({errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK})


def try_lock(descriptor: int) -> bool:
    """Lock the open file unless another one holds the lock; tell whether that was done. Raises OSError where there are no locks."""
    if fcntl is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True
