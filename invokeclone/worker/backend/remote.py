"""The operations of a worker on another machine: each is sent to the server, which runs it for the item's user.

The connection may be cut at any time: operations without an effect are sent again for a while; others fail, as the
server may have run them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from invokeclone.boards.schemas import BoardDTO
from invokeclone.graph.session.execution import GraphExecutionState
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images.schemas import ImageDTO
from invokeclone.kit.storage.local import LocalStorage
from invokeclone.kit.storage.protocol import StoredFile
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.presets.schemas import PresetData
from invokeclone.queue.calls.chain import CalledSession
from invokeclone.queue.rows import ClaimedItem
from invokeclone.users.current import User
from invokeclone.worker.backend import errors
from invokeclone.worker.backend.operations import OPERATIONS, Operation
from invokeclone.worker.backend.protocol import NodeImage, UsedModelFiles
from invokeclone.worker.backend.transfers import ImageTransfers
from invokeclone.workflows.schemas import Workflow

if TYPE_CHECKING:
    from PIL.Image import Image

Call = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Sends an operation with `{item_id, fence, arguments}` and returns what `Dispatcher.dispatch` returned.

Raises ConnectionError if there is no connection, or it was cut before the result came.
"""
RETRY_S = (0.2, 1.0, 3.0, 10.0)
"""Delays before an operation without an effect is sent again."""


class Operations:
    """Sends operations and returns their results."""

    def __init__(self, call: Call) -> None:
        """Send with `call`."""
        self._call = call

    async def request(self, operation_name: str, item: ClaimedItem | None = None, /, **arguments: Any) -> Any:
        """Return the result of an operation, or raise its error; raises ConnectionError."""
        operation = OPERATIONS[operation_name]
        message = {
            "item_id": item.item_id if item else None,
            "fence": item.fence if item else None,
            "arguments": operation.arguments(**arguments).model_dump(mode="json"),
        }
        response = await self._send(operation, message)
        if "error" in response:
            errors.raise_decoded(response["error"])
        return operation.result.validate_python(response.get("result"))

    async def _send(self, operation: Operation, message: dict[str, Any]) -> dict[str, Any]:
        for delay in RETRY_S if operation.repeatable else ():
            try:
                return await self._call(operation.name, message)
            except ConnectionError:
                await asyncio.sleep(delay)
        return await self._call(operation.name, message)


class RemoteItem:
    """The operations of a running item."""

    def __init__(self, operations: Operations, images: ImageTransfers, item: ClaimedItem) -> None:
        """Request the operations of `item`, and transfer its images with `images`."""
        self._operations = operations
        self._images = images
        self._item = item
        self._user: User | None = None

    async def user(self) -> User:
        """Return the item's user, requested once per item."""
        if self._user is None:
            self._user = cast("User", await self._request("user"))
        return self._user

    async def owner_may_run(self) -> bool:
        """Return whether the item's user has an active account."""
        return bool(await self._request("owner_may_run"))

    async def image(self, name: str) -> ImageDTO:
        """Return an image's record, with the size of the upright image."""
        return cast("ImageDTO", await self._request("image", name=name))

    async def require_image(self, name: str) -> None:
        """Raise ImageNotFound or ImageNotYours unless the user may read the image."""
        await self._request("require_image", name=name)

    async def image_metadata(self, name: str) -> str | None:
        """Return an image's metadata as JSON text."""
        return cast("str | None", await self._request("image_metadata", name=name))

    async def image_file(self, name: str, *, thumbnail: bool = False) -> StoredFile:
        """Return a copy of the image's file or of its thumbnail on this machine."""
        await self.require_image(name)
        path = await self._images.fetch(self._item, name, thumbnail=thumbnail)
        return StoredFile(LocalStorage(path.parent), path.name)

    async def save_image(self, image: "Image", fields: NodeImage) -> ImageDTO:
        """Send an image to the server, which stores it and its record."""
        return await self._images.send(self._item, image, fields)

    async def create_board(self, name: str) -> BoardDTO:
        """Create a board of the user."""
        return cast("BoardDTO", await self._request("create_board", name=name))

    async def board(self, board_id: str) -> BoardDTO:
        """Return a board."""
        return cast("BoardDTO", await self._request("board", board_id=board_id))

    async def boards(self) -> list[BoardDTO]:
        """Return the boards that the user may see."""
        return cast("list[BoardDTO]", await self._request("boards"))

    async def add_to_board(self, board_id: str, image_name: str) -> None:
        """Move an image to a board."""
        await self._request("add_to_board", board_id=board_id, image_name=image_name)

    async def board_image_names(self, board_id: str) -> list[str]:
        """Return the names of the images on a board that the user may see, newest first."""
        return cast("list[str]", await self._request("board_image_names", board_id=board_id))

    async def style_preset(self, preset_id: str) -> PresetData:
        """Return a style preset's templates."""
        return cast("PresetData", await self._request("style_preset", preset_id=preset_id))

    async def system_prompt(self, prompt_id: str) -> str:
        """Return a system prompt's text."""
        return str(await self._request("system_prompt", prompt_id=prompt_id))

    async def read_text(self, path: str) -> str:
        """Return the text of a file on the server's machine that the user may read."""
        return str(await self._request("read_text", path=path))

    async def workflow(self, workflow_id: str) -> Workflow:
        """Return a workflow that the user may read."""
        return cast("Workflow", await self._request("workflow", workflow_id=workflow_id))

    async def generator_images(self, board_id: str, categories: Sequence[ImageCategory]) -> list[str]:
        """Return the names of the images of these categories on a board, without intermediates."""
        names = await self._request("generator_images", board_id=board_id, categories=categories)
        return cast("list[str]", names)

    async def suspend(self, state: GraphExecutionState, called: Sequence[CalledSession], workflow: str) -> None:
        """Set the item to waiting for the call in `state`, and enqueue the called sessions."""
        texts = [session.session for session in called]
        item_ids = await self._request("suspend", state=state.to_json(), called=texts, workflow=workflow)
        if state.waiting_workflow_call_execution is not None:
            state.waiting_workflow_call_execution.child_item_ids = item_ids

    async def _request(self, operation_name: str, /, **arguments: Any) -> Any:
        return await self._operations.request(operation_name, self._item, **arguments)


class RemoteBackend:
    """The operations of a worker."""

    def __init__(self, call: Call, images: ImageTransfers, models: Callable[["RemoteBackend"], UsedModelFiles]) -> None:
        """Send operations with `call`, and transfer files with `images` and those that `models` makes."""
        self._operations = Operations(call)
        self._images = images
        self._models = models

    def item(self, item: ClaimedItem) -> RemoteItem:
        """Return the operations of an item."""
        self._images.trim()
        return RemoteItem(self._operations, self._images, item)

    def model_files(self) -> UsedModelFiles:
        """Return access to the files of models."""
        return self._models(self)

    async def list_active(self, item_ids: Sequence[int]) -> set[int]:
        """Return those items that have not ended."""
        return cast("set[int]", await self._operations.request("list_active", item_ids=list(item_ids)))

    async def model(self, key: str) -> ModelConfig:
        """Return a record."""
        return cast("ModelConfig", await self._operations.request("model", key=key))

    async def search_models(self, **attributes: Any) -> list[ModelConfig]:
        """Return the records that match all given attributes."""
        if attributes.get("bases") is not None:
            attributes["bases"] = list(attributes["bases"])
        return cast("list[ModelConfig]", await self._operations.request("search_models", **attributes))
