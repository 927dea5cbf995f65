"""Not looking for garbage while something large is made: each look goes through all its objects and stops every thread meanwhile."""

import contextlib
import gc
import threading
import time
from collections.abc import Iterator

LONGEST_S = 10.0
"""How long pauses that overlap last together; a server that is given one large request after the other collects in between."""


class _Pauses:
    """How many pauses there are at the time, and since when."""

    def __init__(self) -> None:
        self._count = 0
        self._since = 0.0
        self._was_enabled = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Switch the collector off, unless others have had it off for too long, or somebody else has."""
        with self._lock:
            self._count += 1
            if self._count == 1:
                self._since, self._was_enabled = time.monotonic(), gc.isenabled()
                gc.disable()
            elif self._was_enabled and time.monotonic() - self._since > LONGEST_S:
                gc.enable()

    def end(self) -> None:
        """Switch it on again after the last one."""
        with self._lock:
            self._count -= 1
            if self._count == 0 and self._was_enabled:
                gc.enable()


_pauses = _Pauses()


@contextlib.contextmanager
def pause_gc() -> Iterator[None]:
    """Keep the garbage collector off, for the whole process."""
    _pauses.begin()
    try:
        yield
    finally:
        _pauses.end()
