"""Leaving the event loop for work that computes: few threads at a time, because each that holds the interpreter delays the loop.

Work for here is written in slices: a call that holds the interpreter for its whole length stops the loop from a thread, too.
"""

from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync

THREADS = 2
"""Threads that compute at a time; each more adds a switch interval (5 ms) to whatever the loop waits for."""

Result = TypeVar("Result")
_limiter: RunVar[anyio.CapacityLimiter] = RunVar("_limiter")


async def off_loop(work: Callable[[], Result]) -> Result:
    """Run `work` in one of the few threads for computing; whoever waits and goes away does not end it."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(THREADS)
        _limiter.set(limiter)
    return await run_sync(work, limiter=limiter)
