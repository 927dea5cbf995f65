"""Writes a line for each call between modules of invokeclone; trace_flows.py loads it into the server's processes as sitecustomize.

A line has: time in ns of the monotonic clock, flow, caller's module, callee's module, function, number of the path of functions,
whether the callee's package is on the stack. TRACED_PACKAGE is the package's folder, TRACE_TO where the files go.
"""

import asyncio
import contextlib
import contextvars
import dis
import functools
import os
import queue
import sys
import threading
import time
import zlib
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import anyio.to_thread


class Caller(NamedTuple):
    """Who calls: the nearest module on the stack, the path of functions as a number, and the packages on the stack."""

    module: str
    path: int
    packages: frozenset[str]


PACKAGE = os.environ["TRACED_PACKAGE"] + os.sep
FILE = Path(os.environ["TRACE_TO"], f"{os.getpid()}.trace").open("w", buffering=1)  # noqa: SIM115  (open as long as the process)
FLOW = contextvars.ContextVar("flow", default=".")
PARENT: contextvars.ContextVar[Caller | None] = contextvars.ContextVar("parent", default=None)
"""Who has started the task, or handed the work to the thread, that runs here."""
LOOP = ("asyncio/runners.py", "asyncio/base_events.py", "asyncio/events.py", "uvicorn/_compat.py", "uvloop/__init__.py")
"""Files whose frames are the event loop's: what is above them on the stack has called, what is below has not."""
COROUTINE_OR_GENERATOR = 0x2A0
OPTIMIZED = 0x1
"""Flag of the code of functions, which bodies of classes and modules lack."""


@functools.cache
def module_of(file: str) -> str | None:
    """Return the dotted module of a source file of the package, "" for any other, None where the stack is the event loop's."""
    if file.startswith(PACKAGE):
        return file.removeprefix(PACKAGE).removesuffix(".py").replace(os.sep, ".").removesuffix(".__init__")
    return None if file.replace(os.sep, "/").endswith(LOOP) else ""


def caller(frame: FrameType | None) -> Caller | None:
    """Return who calls from `frame`; None outside the package."""
    nearest, names, packages = None, [], set()
    while frame is not None:
        module = module_of(frame.f_code.co_filename)
        if module is None:
            break
        if module:
            nearest = nearest or module
            names.append(f"{module}.{frame.f_code.co_name}")
            packages.add(module.partition(".")[0])
        frame = frame.f_back
    if (parent := PARENT.get()) is not None:
        nearest = nearest or parent.module
        names.append(str(parent.path))
        packages |= parent.packages
    return None if nearest is None else Caller(nearest, zlib.crc32(" ".join(names).encode()), frozenset(packages))


@functools.cache
def first_resume(code: CodeType) -> int:
    """Return where a coroutine or generator begins."""
    return next(coroutine.offset for coroutine in dis.get_instructions(code) if coroutine.opname == "RESUME")


def begins(code: CodeType, frame: FrameType) -> bool:
    """Tell whether a call begins, and is not a coroutine or generator that goes on."""
    return not code.co_flags & COROUTINE_OR_GENERATOR or frame.f_lasti <= first_resume(code)


def trace(frame: FrameType, event: str, _argument: object) -> None:
    """Write the call that begins, if it is one between modules of the package; take a request's flow from its header."""
    if event != "call":
        return
    code = frame.f_code
    module = module_of(code.co_filename)
    if not module:
        if code.co_name == "run_asgi" and "uvicorn" in code.co_filename and begins(code, frame):
            headers = dict(frame.f_locals["self"].scope["headers"])
            FLOW.set(headers.get(b"x-traced-flow", b"-").decode())
            PARENT.set(None)
        return
    name = code.co_name
    counts = code.co_flags & OPTIMIZED and (name[0] != "<" or name == "<lambda>")
    if not counts or not begins(code, frame):
        return
    calling_module = caller(frame.f_back)
    if calling_module is None or calling_module.module == module:
        return
    path = zlib.crc32(f"{calling_module.path} {module}.{name}".encode())
    above = int(module.partition(".")[0] in calling_module.packages)
    print(time.monotonic_ns(), FLOW.get(), calling_module.module, module, name, path, above, file=FILE, sep="\t")


# Whose work tasks and threads do


def starting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make what `function` starts know who has called it."""

    @functools.wraps(function)
    def start(*arguments: Any, **named: Any) -> Any:
        token = PARENT.set(caller(sys._getframe(1)))
        try:
            return function(*arguments, **named)
        finally:
            PARENT.reset(token)

    return start


def awaiting(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Make the thread that `function` waits for know who has called it."""

    @functools.wraps(function)
    async def start(*arguments: Any, **named: Any) -> Any:
        token = PARENT.set(caller(sys._getframe(1)))
        try:
            return await function(*arguments, **named)
        finally:
            PARENT.reset(token)

    return start


def in_context(function: Callable[..., Any]) -> Callable[..., Any]:
    """Carry flow and caller along to the thread that calls `function`."""
    context = contextvars.copy_context()
    context.run(PARENT.set, caller(sys._getframe(2)))
    return functools.partial(context.run, function)


class Queue(queue.SimpleQueue[Any]):
    """Threads of databases take functions, or pairs with one, out of these."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put `item`, with its context where it can be called."""
        if callable(item):
            item = in_context(item)
        elif isinstance(item, tuple) and item and callable(item[-1]):
            item = (*item[:-1], in_context(item[-1]))
        super().put(item, block, timeout)


submit_as_before = ThreadPoolExecutor.submit


def submit(self: ThreadPoolExecutor, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
    """Submit `function` with its context."""
    return submit_as_before(self, in_context(function), *arguments, **named)


def install() -> None:
    """Trace from now on, in every thread."""
    print(*sys.orig_argv, file=FILE)
    loops: list[Any] = [asyncio.BaseEventLoop]
    with contextlib.suppress(ImportError):
        import uvloop

        loops.append(uvloop.Loop)
    for loop in loops:
        loop.create_task = starting(loop.create_task)
        loop.call_soon_threadsafe = starting(loop.call_soon_threadsafe)
    patches: list[tuple[Any, str, Any]] = [
        (asyncio, "run_coroutine_threadsafe", starting(asyncio.run_coroutine_threadsafe)),
        (asyncio, "to_thread", awaiting(asyncio.to_thread)),
        (anyio.to_thread, "run_sync", awaiting(anyio.to_thread.run_sync)),
        (queue, "SimpleQueue", Queue),
        (ThreadPoolExecutor, "submit", submit),
    ]
    for owner, name, replacement in patches:
        setattr(owner, name, replacement)
    threading.setprofile(trace)
    sys.setprofile(trace)


install()
