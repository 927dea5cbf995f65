"""Checkpoints: points in a node's execution at which it stops if its queue item has been canceled.

Checkpoints are reached on each call of the InvocationContext, each denoise step, each module of a network while a
cancel is pending, and each tensor read while a model loads. They have no effect in a thread that runs no node.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from invokeclone.graph.context import CanceledException

POLL_INTERVAL_S = 0.2
"""Seconds between two checks of the cancel flag by a waiting thread."""


class Lock(Protocol):
    """A lock of `threading`."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...  # noqa: D102

    def release(self) -> None: ...  # noqa: D102


class _Running(threading.local):
    """The cancel flag of the node that a thread runs, and the callback for when a checkpoint finds it set."""

    canceled: threading.Event | None = None
    on_cancel: Callable[[], None] | None = None


_running = _Running()


@contextlib.contextmanager
def watch_cancellation(canceled: threading.Event, on_cancel: Callable[[], None] | None = None) -> Iterator[None]:
    """Make this thread's checkpoints check `canceled` inside the block; `on_cancel` is called before each raise."""
    previous = _running.canceled, _running.on_cancel
    _running.canceled, _running.on_cancel = canceled, on_cancel
    try:
        yield
    finally:
        _running.canceled, _running.on_cancel = previous


@contextlib.contextmanager
def acquire_lock(lock: Lock) -> Iterator[None]:
    """Hold `lock` inside the block; raise CanceledException if the item is canceled while waiting for it."""
    while not lock.acquire(timeout=POLL_INTERVAL_S):
        checkpoint()
    try:
        yield
    finally:
        lock.release()


def checkpoint() -> None:
    """Raise CanceledException if the queue item whose node this thread runs has been canceled."""
    if _running.canceled is not None and _running.canceled.is_set():
        if _running.on_cancel is not None:
            _running.on_cancel()
        raise CanceledException("the queue item was canceled")
