"""A lock on an open file, released by the system when the process ends for any reason."""

import errno
import os

try:
    import fcntl
except ImportError:  # not on this system
    fcntl = None  # type: ignore[assignment]

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
