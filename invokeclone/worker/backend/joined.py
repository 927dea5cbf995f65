"""Sets up the backend of a joined worker, and the server's method for its operations."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.resources import Resources
from invokeclone.worker.backend import errors
from invokeclone.worker.backend.dispatch import Dispatcher, InvalidArguments
from invokeclone.worker.backend.http import HttpTransport
from invokeclone.worker.backend.model_cache import FetchedModels
from invokeclone.worker.backend.operations import Holder
from invokeclone.worker.backend.remote import Call, RemoteBackend
from invokeclone.worker.backend.transfers import ImageTransfers

IMAGE_BUDGET = 256 * 1024**2
"""Bytes of fetched image files that a worker keeps between items."""


class _Message(BaseModel):
    """The arguments of an operation, and the claim for which it is requested."""

    model_config = ConfigDict(extra="forbid")

    item_id: int | None
    fence: int | None
    arguments: dict[str, Any]


async def run_operation(
    resources: Resources, worker_id: str, operation: str, message: dict[str, Any]
) -> dict[str, Any]:
    """Run an operation that a worker requested; returns `result` or `error`, and never raises."""
    try:
        claimed = _Message.model_validate(message)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        invalid = InvalidArguments(f"invalid request of {operation[:100]}: {problem['loc']}: {problem['msg']}")
        return {"error": errors.encode(invalid, operation)}
    holder = Holder(worker_id, claimed.item_id, claimed.fence)
    return await Dispatcher(resources).dispatch(operation, claimed.arguments, holder)


class JoinedBackend:
    """The connection of a joined worker to the server's data."""

    def __init__(
        self,
        call: Call,
        transport: HttpTransport,
        settings: Settings,
        folder: Path,
    ) -> None:
        """Request operations with `call`, transfer files with `transport`, and keep images in `folder` while it runs."""
        images = ImageTransfers(transport, settings, folder, IMAGE_BUDGET)
        self.backend = RemoteBackend(call, images, FetchedModels(transport, settings).files)
        self._transport = transport

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()
