"""Importing a package without the heavy optional ones it would bring along.

Socket.IO's package imports its clients, and these aiohttp and requests, which a server never uses: a tenth of its start.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def block_imports(*names: str) -> Iterator[None]:
    """Inside the block, importing one of `names` that isn't loaded yet fails as if it weren't installed."""
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)


def import_socketio() -> None:
    """Import Socket.IO's package for a process that only serves; its clients don't work there."""
    with block_imports("aiohttp", "requests", "websocket"):
        importlib.import_module("socketio")
