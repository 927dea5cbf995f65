"""Threads for calls of a storage, apart from those of other work, so that an outage of its service holds up nothing else."""

import asyncio
import errno
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from anyio import CancelScope, CapacityLimiter, WouldBlock

from invokeclone.kit.files.storage_errors import StorageUnreachable
from invokeclone.kit.process.loop_local import LoopLocal
from invokeclone.kit.process.offload import off_loop

THREADS = 40
"""Number of calls at a time; one that returns a whole file holds it, so callers bound their number (`images/image_work.py`)."""
WAIT_S = 10.0
"""Seconds that a call waits for a thread; it waits that long only if calls do not end."""

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")
_SLOTS = LoopLocal("calls of the storage", lambda: CapacityLimiter(THREADS))
_UNLIMITED = LoopLocal("threads of the storage", lambda: CapacityLimiter(float("inf")))


async def in_storage_thread(
    function: Callable[Parameters, Result], *arguments: Parameters.args, **named: Parameters.kwargs
) -> Result:
    """Call a function that calls the storage in a thread, and return its result.

    Cancelling the awaiting task does not stop the call, which holds its thread until it ends. Raises StorageUnreachable
    if no thread is free in time.
    """
    slots = _SLOTS.get()
    borrower = object()
    try:
        slots.acquire_on_behalf_of_nowait(borrower)
    except WouldBlock:
        try:
            async with asyncio.timeout(WAIT_S):
                await slots.acquire_on_behalf_of(borrower)
        except TimeoutError as error:
            raise StorageUnreachable(errno.ETIMEDOUT, "all threads wait for the storage") from error
    call = asyncio.ensure_future(off_loop(functools.partial(function, *arguments, **named), _UNLIMITED.get()))

    def end(call: "asyncio.Future[Result]") -> None:
        slots.release_on_behalf_of(borrower)
        if not call.cancelled():
            call.exception()  # of a task that was cancelled meanwhile

    call.add_done_callback(end)
    with CancelScope(shield=True):
        await asyncio.wait([call])  # which does not cancel it
    return call.result()
