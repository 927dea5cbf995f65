"""What other packages ask of the processes that run nodes; the server's supervisor does it."""

from typing import Any, Protocol


class Workers(Protocol):
    """The running workers."""

    async def ask_all(self, name: str, body: dict[str, Any] | None = None, seconds: float = 10.0) -> list[Any]:
        """Ask every worker that is ready and return the answers; raises Unavailable when none of several could answer."""
        ...

    async def ask_one(self, name: str, body: dict[str, Any], seconds: float, *, startup_s: float = 0.0) -> Any:
        """Ask one worker, an idle one if there is one, and return its answer within `seconds`.

        Waits `startup_s` seconds at most for a worker to be ready. Raises Unavailable when none is, or the one that was
        asked ended or could not answer; TimeoutError.
        """
        ...
