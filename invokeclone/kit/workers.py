"""Protocol for requests to the worker processes, implemented by the server's supervisor."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from invokeclone.kit import log
from invokeclone.kit.errors import Unavailable

_Reply = TypeVar("_Reply", bound=BaseModel)
_log = log.get("server.supervisor")


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


def parse_replies(model: type[_Reply], replies: Sequence[object]) -> list[_Reply]:
    """Return the replies of workers as `model`, without those that are no such thing: a worker may be of another machine."""
    parsed = []
    for reply in replies:
        try:
            parsed.append(model.model_validate(reply))
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            _log.warning("a worker sent a reply that is no %s: %s", model.__name__, problem["msg"])
    return parsed
