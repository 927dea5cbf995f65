"""Protocol for requests to the worker processes, implemented by the server's supervisor."""

from typing import Any, Protocol

from invokeclone.kit.errors import Unavailable


class NoWorkerRunning(Unavailable):
    """No worker can run items; clients may try again."""


class Workers(Protocol):
    """The running workers."""

    def require_running(self) -> None:
        """Raise NoWorkerRunning if every worker has ended, or ends again and again before it is ready."""
        ...

    async def ask_all(self, name: str, body: dict[str, Any] | None = None, seconds: float = 10.0) -> list[Any]:
        """Send a request to every ready worker and return the answers.

        Raises Unavailable when no worker could answer.
        """
        ...

    async def ask_one(self, name: str, body: dict[str, Any], seconds: float, *, startup_s: float = 0.0) -> Any:
        """Send a request to one worker, preferably an idle one, and return its answer within `seconds`.

        Waits up to `startup_s` seconds for a worker to become ready. Raises Unavailable when none does, or when the
        worker ends or cannot answer; TimeoutError.
        """
        ...
