"""Imports of a package without its heavy optional dependencies.

The socketio package imports its clients, and these import aiohttp and requests, which a server never uses: a tenth of
the startup time.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def block_imports(*names: str) -> Iterator[None]:
    """Make imports of `names` that are not loaded yet fail inside the block, as if they were not installed."""
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)


def import_socketio() -> None:
    """Import socketio for a process that only serves; its clients do not work in this process."""
    with block_imports("aiohttp", "requests", "websocket"):
        importlib.import_module("socketio")
