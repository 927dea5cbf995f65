"""Pausing the garbage collector while large objects are built: a collection visits them all and stops every thread."""

import contextlib
import gc
import threading
import time
from collections.abc import Iterator

LONGEST_S = 10.0
"""Maximum seconds of overlapping pauses; under continuous load the collector runs in between."""


class _Pauses:
    """Counts nested and concurrent pauses, and when the first one began."""

    def __init__(self) -> None:
        self._count = 0
        self._since = 0.0
        self._was_enabled = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Disable the collector, unless overlapping pauses have lasted too long or it was disabled before."""
        with self._lock:
            self._count += 1
            if self._count == 1:
                self._since, self._was_enabled = time.monotonic(), gc.isenabled()
                gc.disable()
            elif self._was_enabled and time.monotonic() - self._since > LONGEST_S:
                gc.enable()

    def end(self) -> None:
        """Enable the collector again after the last pause."""
        with self._lock:
            self._count -= 1
            if self._count == 0 and self._was_enabled:
                gc.enable()


_pauses = _Pauses()


@contextlib.contextmanager
def pause_gc() -> Iterator[None]:
    """Disable the garbage collector of the whole process inside the block."""
    _pauses.begin()
    try:
        yield
    finally:
        _pauses.end()
