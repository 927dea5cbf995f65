"""Offloading work from the event loop.

Use `in_thread` for blocking calls (files, DNS, native code), `off_loop` for Python computation. Requests and background
tasks of the server leave the event loop only through this module. Cancelling the awaiting task does not stop the work.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import anyio
from anyio.to_thread import run_sync

from invokeclone.kit.process.loop_local import LoopLocal

THREADS = 2
"""Number of computing threads; each further one adds a switch interval (5 ms) to the latency of the event loop."""

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")
_limiter = LoopLocal("computing threads", lambda: anyio.CapacityLimiter(THREADS))


def in_thread(
    function: Callable[Parameters, Result], *arguments: Parameters.args, **named: Parameters.kwargs
) -> Coroutine[Any, Any, Result]:
    """Call a function that blocks but seldom holds the interpreter lock in a thread, and return its result."""
    return run_sync(functools.partial(function, *arguments, **named))


def off_loop(work: Callable[[], Result], limiter: anyio.CapacityLimiter | None = None) -> Coroutine[Any, Any, Result]:
    """Run `work` in one of the `THREADS` computing threads, or under another `limiter`.

    `work` must be written in slices: a call that holds the interpreter lock throughout blocks the event loop even from
    a thread.
    """
    return run_sync(work, limiter=limiter or _limiter.get())


async def run_to_completion(work: Callable[..., Result], *arguments: object) -> Result:
    """Run a blocking function in a thread and wait for it even if this task is cancelled."""
    future = asyncio.ensure_future(in_thread(work, *arguments))
    await wait_until_done(future)
    return future.result()


def shield(work: Awaitable[Result]) -> "asyncio.Future[Result]":
    """Shield `work` from a cancellation of the current task, as asyncio does; its error is dropped if nobody waits for it."""
    future = asyncio.ensure_future(work)
    future.add_done_callback(_retrieve)
    return asyncio.shield(future)


def _retrieve(future: "asyncio.Future[Any]") -> None:
    """Mark the error of a future as retrieved, so that asyncio does not log it."""
    if not future.cancelled():
        future.exception()


async def wait_until_done(task: "asyncio.Future[Result]") -> None:
    """Wait for a task to end; a cancellation of the current task is raised only then."""
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
