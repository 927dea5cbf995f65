"""Values that belong to one event loop: limits of threads, and what is shared by the requests of a server."""

from collections.abc import Callable
from typing import Generic, TypeVar

from anyio.lowlevel import RunVar

Value = TypeVar("Value")


class LoopLocal(Generic[Value]):
    """A value for each event loop, made at its first use there."""

    def __init__(self, name: str, make: Callable[[], Value]) -> None:
        """Name the value for debuggers, and make it by `make`."""
        self._variable: RunVar[Value] = RunVar(name)
        self._make = make

    def get(self) -> Value:
        """Return the value of the running event loop."""
        try:
            return self._variable.get()
        except LookupError:
            value = self._make()
            self._variable.set(value)
            return value
