"""Leaving the event loop: `in_thread` for what blocks (files, names of hosts, native code), `off_loop` for what computes in Python.

The one place where requests and background tasks of the server leave the loop. Cancelling whoever waits does not end the work.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import anyio
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync

THREADS = 2
"""Threads that compute at a time; each more adds a switch interval (5 ms) to whatever the loop waits for."""

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")
_limiter: RunVar[anyio.CapacityLimiter] = RunVar("_limiter")


async def in_thread(
    function: Callable[Parameters, Result], *arguments: Parameters.args, **named: Parameters.kwargs
) -> Result:
    """Call a function that blocks but seldom holds the interpreter, in a thread, and return its result."""
    return await run_sync(functools.partial(function, *arguments, **named))


async def off_loop(work: Callable[[], Result], limiter: anyio.CapacityLimiter | None = None) -> Result:
    """Run `work` in one of the few threads for computing, or of those of another `limiter`.

    Work for here is written in slices: a call that holds the interpreter for its whole length stops the loop from a thread, too.
    """
    if limiter is None:
        try:
            limiter = _limiter.get()
        except LookupError:
            limiter = anyio.CapacityLimiter(THREADS)
            _limiter.set(limiter)
    return await run_sync(work, limiter=limiter)
