"""Sets up the backend of a joined worker, and the server's method for its operations."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.resources import Resources
from invokeclone.worker.backend import errors
from invokeclone.worker.backend.dispatch import Dispatcher, InvalidArguments
from invokeclone.worker.backend.http import HttpTransport
from invokeclone.worker.backend.model_cache import FetchedModels
from invokeclone.worker.backend.operations import Holder
from invokeclone.worker.backend.remote import RemoteBackend
from invokeclone.worker.backend.transfers import ImageTransfers

METHOD = "backend.run"
IMAGE_BUDGET = 256 * 1024**2
"""Bytes of fetched image files that a worker keeps between items."""


class NoDatabase:
    """The database of a joined worker: it has none, and uses operations instead."""

    def __getattr__(self, name: str) -> Any:
        """Raise AttributeError."""
        raise AttributeError(f"a joined worker has no database ({name})")


class CallingWorker(Protocol):
    """The worker that calls a method."""

    @property
    def worker_id(self) -> str:
        """Its id."""
        ...


class _Message(BaseModel):
    """An operation, and the claim for which it is requested."""

    model_config = ConfigDict(extra="forbid")

    operation: str
    item_id: int | None
    fence: int | None
    arguments: dict[str, Any]


async def run_operation(resources: Resources, worker: CallingWorker, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run an operation that a worker requested; returns `result` or `error`, and never raises."""
    try:
        message = _Message.model_validate(arguments)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        invalid = InvalidArguments(f"not a request of an operation: {problem['loc']}: {problem['msg']}")
        return {"error": errors.encode(invalid, METHOD)}
    holder = Holder(worker.worker_id, message.item_id, message.fence)
    return await Dispatcher(resources).dispatch(message.operation, message.arguments, holder)


class Joined:
    """The connection of a joined worker to the server's data."""

    def __init__(
        self,
        call: Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]],
        transport: HttpTransport,
        settings: Settings,
        folder: Path,
    ) -> None:
        """Request operations with `call`, transfer files with `transport`, and keep images in `folder` while it runs."""

        async def run(operation: str, message: dict[str, Any]) -> dict[str, Any]:
            return await call(METHOD, {"operation": operation, **message})

        images = ImageTransfers(transport, settings, folder, IMAGE_BUDGET)
        self.backend = RemoteBackend(run, images, FetchedModels(transport, settings).files)
        self._transport = transport

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()
