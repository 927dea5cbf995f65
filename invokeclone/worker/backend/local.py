"""The operations of a worker on a database and folders that it reaches itself; the server uses them for joined workers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.boards import service as boards_service
from invokeclone.boards import store as boards_store
from invokeclone.boards.schemas import BoardDTO
from invokeclone.graph.context import CanceledException
from invokeclone.graph.session.execution import GraphExecutionState
from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import access
from invokeclone.images import service as images
from invokeclone.images.schemas import ImageDTO
from invokeclone.kit.files import user_files
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources
from invokeclone.kit.storage.protocol import StoredFile
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.records import store as models
from invokeclone.presets import prompts
from invokeclone.presets import service as presets
from invokeclone.presets.schemas import PresetData
from invokeclone.queue import claims, leases
from invokeclone.queue.calls import chain
from invokeclone.queue.calls.chain import CalledSession
from invokeclone.queue.rows import ClaimedItem, Item
from invokeclone.users import rights, signin
from invokeclone.users.current import SYSTEM, User
from invokeclone.worker.backend.protocol import NodeImage, Progress
from invokeclone.workflows import service as workflows
from invokeclone.workflows.schemas import Workflow

if TYPE_CHECKING:
    from PIL.Image import Image


class LocalItem:
    """The operations of a running item."""

    def __init__(self, resources: Resources, item: Item, fence: int) -> None:
        """Use `resources` with the rights of the user of `item`, which is held by the claim with `fence`."""
        self._resources = resources
        self._item = item
        self._fence = fence
        self._user: User | None = None

    async def user(self) -> User:
        """Return the item's user, read once per item."""
        if self._user is None:
            if self._item.user_id == SYSTEM.user_id:
                self._user = SYSTEM
            else:
                async with self._resources.database.read() as connection:
                    self._user = await rights.acting_user(connection, self._item.user_id)
        return self._user

    async def owner_may_run(self) -> bool:
        """Return whether the item's user has an active account."""
        if not self._resources.settings.multiuser:
            return True
        return await signin.may_run(self._resources.database, self._item.user_id)

    async def image(self, name: str) -> ImageDTO:
        """Return an image's record, with the size of the upright image."""
        record = await images.get(self._resources, name, await self.user())
        width, height = await images.upright_size(self._resources, record)
        return record.model_copy(update={"width": width, "height": height})

    async def require_image(self, name: str) -> None:
        """Raise ImageNotFound or ImageNotYours unless the user may read the image."""
        await images.file(self._resources, name, user=await self.user())

    async def image_metadata(self, name: str) -> str | None:
        """Return an image's metadata as JSON text."""
        return await images.metadata_json(self._resources, name, await self.user())

    async def image_file(self, name: str, *, thumbnail: bool = False) -> StoredFile:
        """Return the file of the image or its thumbnail."""
        return await images.file(self._resources, name, thumbnail=thumbnail, user=await self.user())

    async def save_image(self, image: "Image", fields: NodeImage) -> ImageDTO:
        """Store an image and its record."""
        return await images.save(
            self._resources,
            image,
            category=fields.category,
            origin=ResourceOrigin.INTERNAL,
            is_intermediate=fields.is_intermediate,
            board_id=fields.board_id,
            session_id=self._item.session_id,
            node_id=fields.node_id,
            metadata=fields.metadata,
            workflow=fields.workflow,
            graph=fields.graph,
            user_id=self._item.user_id,
            check=self._require_claim if self._fence else None,
        )

    async def _require_claim(self, connection: AsyncConnection) -> None:
        """Raise CanceledException if the item was claimed again, or has ended."""
        try:
            await leases.require_claim(connection, self._item.item_id, self._fence)
        except leases.ItemNotHeld as error:
            raise CanceledException(str(error)) from error

    async def create_board(self, name: str) -> BoardDTO:
        """Create a board of the user."""
        async with self._resources.database.write() as connection:
            return await boards_store.create(connection, name, self._item.user_id)

    async def board(self, board_id: str) -> BoardDTO:
        """Return a board."""
        user = await self.user()
        async with self._resources.database.read() as connection:
            await access.require_board_readable(connection, user, board_id)
            return await boards_store.get(connection, board_id)

    async def boards(self) -> list[BoardDTO]:
        """Return the boards that the user may see."""
        user = await self.user()
        async with self._resources.database.read() as connection:
            return await boards_store.list_all(connection, user=user)

    async def add_to_board(self, board_id: str, image_name: str) -> None:
        """Move an image to a board."""
        user = await self.user()
        async with self._resources.database.write() as connection:
            boards_service.single(await boards_service.add(connection, user, board_id, [image_name]), image_name)

    async def board_image_names(self, board_id: str) -> list[str]:
        """Return the names of the images on a board that the user may see, newest first."""
        user = await self.user()
        async with self._resources.database.read() as connection:
            owner = await access.list_owner(connection, user, board_id)
            return await boards_store.image_names(connection, board_id, owner=owner)

    async def style_preset(self, preset_id: str) -> PresetData:
        """Return a style preset's templates."""
        user = await self.user()
        async with self._resources.database.read() as connection:
            return (await presets.get(connection, preset_id, user)).preset_data

    async def system_prompt(self, prompt_id: str) -> str:
        """Return a system prompt's text."""
        user = await self.user()
        async with self._resources.database.read() as connection:
            return (await prompts.get(connection, prompt_id, user)).content

    async def read_text(self, path: str) -> str:
        """Return the text of a file on this machine that the user may read."""
        user = await self.user()

        def read() -> str:
            with user_files.open_text(self._resources.settings, path, is_admin=user.is_admin) as file:
                return file.read()

        return await in_thread(read)

    async def workflow(self, workflow_id: str) -> Workflow:
        """Return a workflow that the user may read."""
        return await workflows.read(self._resources, workflow_id, await self.user())

    async def generator_images(self, board_id: str, categories: Sequence[ImageCategory]) -> list[str]:
        """Return the names of the images of these categories on a board, without intermediates."""
        user = await self.user()
        async with self._resources.database.read() as connection:
            owner = await access.list_owner(connection, user, board_id)
            return await boards_store.image_names(
                connection, board_id, tuple(categories), is_intermediate=False, owner=owner
            )

    async def suspend(self, state: GraphExecutionState, called: Sequence[CalledSession], workflow: str) -> None:
        """Set the item to waiting for the call in `state`, and enqueue the called sessions."""
        await chain.suspend(self._resources, self._item, self._fence, state, called, workflow)


class LocalModelFiles:
    """The files of models in the models folder, or where their records say."""

    def __init__(self, resources: Resources) -> None:
        """Use the settings and records of `resources`."""
        self._resources = resources

    async def path(self, config: ModelConfig, progress: Progress) -> Path:
        """Return the file or folder of a record."""
        return await self.path_of(config.path, progress)

    async def path_of(self, path: str, progress: Progress) -> Path:  # noqa: ARG002  (nothing is fetched)
        """Return a path as an absolute one; relative paths are in the models folder."""
        return (self._resources.settings.models_path / path).absolute()

    async def search_by_path(self, path: Path) -> list[ModelConfig]:
        """Return the records of models at a path, absolute or relative to the models folder."""
        models_path = self._resources.settings.models_path
        names = {str(path), path.as_posix()}
        if path.is_absolute() and path.is_relative_to(models_path):
            names.add(path.relative_to(models_path).as_posix())
        async with self._resources.database.read() as connection:
            return [config for name in sorted(names) for config in await models.search(connection, path=name)]

    async def read_file(self, config: ModelConfig, name: str) -> bytes | None:
        """Return a small file of a model's folder."""
        return await in_thread(read_small_file, self._resources.settings.models_path / config.path / name)

    def close(self) -> None:
        """Do nothing: the files stay."""


class LocalBackend:
    """The operations of a worker."""

    def __init__(self, resources: Resources) -> None:
        """Use `resources`."""
        self._resources = resources

    def item(self, item: ClaimedItem) -> LocalItem:
        """Return the operations of an item."""
        return LocalItem(self._resources, item, item.fence)

    def model_files(self) -> LocalModelFiles:
        """Return access to the files of models."""
        return LocalModelFiles(self._resources)

    async def list_active(self, item_ids: Sequence[int]) -> set[int]:
        """Return those items that have not ended."""
        return await claims.list_active(self._resources, item_ids)

    async def model(self, key: str) -> ModelConfig:
        """Return a record."""
        async with self._resources.database.read() as connection:
            return await models.get(connection, key)

    async def search_models(self, **attributes: Any) -> list[ModelConfig]:
        """Return the records that match all given attributes."""
        async with self._resources.database.read() as connection:
            return await models.search(connection, **attributes)


MAX_SMALL_FILE = 1024 * 1024


def read_small_file(path: Path) -> bytes | None:
    """Return the content of a file; None if there is none, or it has over `MAX_SMALL_FILE` bytes. Blocks."""
    try:
        return path.read_bytes() if path.is_file() and path.stat().st_size <= MAX_SMALL_FILE else None
    except OSError:
        return None
