"""The operations of a worker on the server's data: records, images, boards, presets, workflows and text files.

Nodes reach data only through the InvocationContext, and its interfaces only through these protocols. `local.py` calls
the services on the same database and folders; `remote.py` sends each operation to the server, which runs it locally for
the item's user. Tensors, conditionings, the invocation cache and the profiles are the worker's own and not part of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from invokeclone.boards.schemas import BoardDTO
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images.schemas import ImageDTO
from invokeclone.kit.storage.protocol import StoredFile
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.presets.schemas import PresetData
from invokeclone.queue.calls.begin import Calls
from invokeclone.queue.rows import ClaimedItem
from invokeclone.users.current import User

if TYPE_CHECKING:
    from PIL.Image import Image

Progress = Callable[[str, float | None], None]
"""Called with a message and the completed fraction (0 to 1, None if unknown), in the event loop's thread."""


@dataclass(frozen=True, slots=True)
class NodeImage:
    """The fields of an image that a node saves; `metadata`, `workflow` and `graph` are JSON text to be embedded."""

    category: ImageCategory
    node_id: str
    is_intermediate: bool = False
    board_id: str | None = None
    metadata: str | None = None
    workflow: str | None = None
    graph: str | None = None


class ItemBackend(Calls, Protocol):
    """The operations of a running item, with the rights of its user; `Calls` has those of workflow calls."""

    async def user(self) -> User:
        """Return the item's user."""
        ...

    async def owner_may_run(self) -> bool:
        """Return whether the item's user has an active account."""
        ...

    async def image(self, name: str) -> ImageDTO:
        """Return an image's record, with the size of the upright image; raises ImageNotFound, ImageNotYours."""
        ...

    async def require_image(self, name: str) -> None:
        """Raise ImageNotFound or ImageNotYours unless the user may read the image."""
        ...

    async def image_metadata(self, name: str) -> str | None:
        """Return an image's metadata as JSON text; raises ImageNotFound, ImageNotYours."""
        ...

    async def image_file(self, name: str, *, thumbnail: bool = False) -> StoredFile:
        """Return the file of the image or its thumbnail; raises ImageNotFound, ImageNotYours."""
        ...

    async def save_image(self, image: "Image", fields: NodeImage) -> ImageDTO:
        """Store an image and its record; `image` must not change until this returns. Raises OSError, CanceledException."""
        ...

    async def create_board(self, name: str) -> BoardDTO:
        """Create a board of the user."""
        ...

    async def board(self, board_id: str) -> BoardDTO:
        """Return a board; raises BoardNotFound, NotYourBoard."""
        ...

    async def boards(self) -> list[BoardDTO]:
        """Return the boards that the user may see."""
        ...

    async def add_to_board(self, board_id: str, image_name: str) -> None:
        """Move an image to a board; raises BoardNotFound, ImageNotFound, NotYourBoard, ImageNotYours."""
        ...

    async def board_image_names(self, board_id: str) -> list[str]:
        """Return the names of the images on a board that the user may see, newest first."""
        ...

    async def style_preset(self, preset_id: str) -> PresetData:
        """Return a style preset's templates; raises PresetNotFound, PresetNotYours."""
        ...

    async def system_prompt(self, prompt_id: str) -> str:
        """Return a system prompt's text; raises PromptNotFound, PresetNotYours."""
        ...

    async def read_text(self, path: str) -> str:
        """Return the text of a file on the server that the user may read.

        Raises FileRefused, FileNotReadable, TooLarge, Unprocessable.
        """
        ...


class UsedModelFiles(Protocol):
    """The files of models on this machine; those that were requested stay there until `close`."""

    async def path(self, config: ModelConfig, progress: Progress) -> Path:
        """Return the file or folder of a record, which may have to be fetched first.

        Raises ModelNotFetched, and CanceledException from `progress`.
        """
        ...

    async def path_of(self, path: str, progress: Progress) -> Path:
        """Return the file or folder at a path that is absolute or relative to the models folder, as `path` does.

        Raises NotOnThisWorker.
        """
        ...

    async def search_by_path(self, path: Path) -> list[ModelConfig]:
        """Return the records of models at a path that is absolute or relative to the models folder."""
        ...

    async def read_file(self, config: ModelConfig, name: str) -> bytes | None:
        """Return a small file of a model's folder, None if there is none; does not fetch the model."""
        ...

    def close(self) -> None:
        """Let the files be removed when others need the space."""
        ...


class WorkerBackend(Protocol):
    """The operations of a worker; model records are shared by all users."""

    def item(self, item: ClaimedItem) -> ItemBackend:
        """Return the operations of an item that this worker has claimed and now runs."""
        ...

    def model_files(self) -> UsedModelFiles:
        """Return access to the files of models."""
        ...

    async def list_active(self, item_ids: Sequence[int]) -> set[int]:
        """Return those items that have not ended."""
        ...

    async def model(self, key: str) -> ModelConfig:
        """Return a record; raises UnknownModelException."""
        ...

    async def search_models(self, **attributes: Any) -> list[ModelConfig]:
        """Return the records that match all given attributes: name, bases, type, format, path."""
        ...
