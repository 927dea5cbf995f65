"""What a node may ask of the application: InvokeAI's nine faces and one for presets, as Protocols.

The worker fills them. Nothing here knows how images, tensors or models are stored, or what runs the node.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

from invokeclone.graph.vocabulary.fields import MetadataField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ImageCategory, ModelFormat, ModelType, SubModelType

if TYPE_CHECKING:
    from PIL.Image import Image

Tensor = Any
"""A torch.Tensor; this room does without torch, even to name it."""

ImageMode = Literal["L", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"]


class CanceledException(Exception):
    """The queue item was canceled; raised inside a node to stop it."""


class ImageLike(Protocol):
    """What nodes read of an image record."""

    @property
    def image_name(self) -> str:
        """The image's name."""

    @property
    def width(self) -> int:
        """Width in pixels."""

    @property
    def height(self) -> int:
        """Height in pixels."""


class BoardLike(Protocol):
    """What nodes read of a board record."""

    @property
    def board_id(self) -> str:
        """The board's id."""

    @property
    def board_name(self) -> str:
        """The board's name."""


class LoadedModel(Protocol):
    """A model held in the cache; entered, it stays on the device and is the model itself."""

    @property
    def config(self) -> Any:
        """The model's record."""

    @property
    def model(self) -> Any:
        """The model, wherever it is."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *details: object) -> None: ...

    def model_on_device(
        self, working_mem_bytes: int | None = None
    ) -> AbstractContextManager[tuple[dict[str, Any] | None, Any]]:
        """Return the state dict in RAM, if there is one, and the model on the device."""


class LoadedModelWithoutConfig(Protocol):
    """A model that was loaded from a file and has no record."""

    @property
    def model(self) -> Any:
        """The model, wherever it is."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *details: object) -> None: ...

    def model_on_device(
        self, working_mem_bytes: int | None = None
    ) -> AbstractContextManager[tuple[dict[str, Any] | None, Any]]:
        """Return the state dict in RAM, if there is one, and the model on the device."""


@dataclass
class PipelineIntermediateState:
    """Where a denoise loop stands."""

    step: int
    order: int
    total_steps: int
    timestep: int
    latents: Tensor
    predicted_original: Tensor | None = None


@dataclass(frozen=True)
class ItemData:
    """The queue item that is being run (the context's ninth face)."""

    queue_item: Any
    invocation: Any
    source_invocation_id: str


class ImagesInterface(Protocol):
    """Images."""

    def save(
        self,
        image: "Image",
        board_id: str | None = None,
        image_category: ImageCategory = ImageCategory.GENERAL,
        metadata: MetadataField | None = None,
    ) -> ImageLike:
        """Save a PIL image; board and metadata come from the node's own fields unless given."""

    def get_pil(self, image_name: str, mode: ImageMode | None = None) -> "Image":
        """Return a copy of the image, converted when a mode is given."""

    def get_metadata(self, image_name: str) -> MetadataField | None:
        """Return the image's metadata, if it has any."""

    def get_dto(self, image_name: str) -> ImageLike:
        """Return the image's record."""

    def get_path(self, image_name: str, thumbnail: bool = False) -> Path:
        """Path of the file, or of its thumbnail."""


class TensorsInterface(Protocol):
    """Tensors that pass between nodes."""

    def save(self, tensor: Tensor) -> str:
        """Keep a tensor; returns its name."""

    def load(self, name: str) -> Tensor:
        """Return a copy of the tensor."""


class ConditioningInterface(Protocol):
    """Text conditionings that pass between nodes."""

    def save(self, conditioning_data: Any) -> str:
        """Keep a ConditioningFieldData; returns its name."""

    def load(self, name: str) -> Any:
        """Return a copy of the ConditioningFieldData."""


class ModelsInterface(Protocol):
    """Models: records and loading."""

    def exists(self, identifier: str | ModelIdentifierField) -> bool:
        """Whether a model is known."""

    def load(self, identifier: str | ModelIdentifierField, submodel_type: SubModelType | None = None) -> LoadedModel:
        """Load a model or a part of it."""

    def load_by_attrs(
        self,
        name: str,
        base: BaseModelType,
        type: ModelType,  # noqa: A002 - the contract's word
        submodel_type: SubModelType | None = None,
    ) -> LoadedModel:
        """Load the one model with these attributes; several or none is an error."""

    def get_config(self, identifier: str | ModelIdentifierField) -> Any:
        """Return the model's record; unknown: UnknownModelException."""

    def search_by_path(self, path: Path) -> list[Any]:
        """Return records of models at a path."""

    def search_by_attrs(
        self,
        name: str | None = None,
        base: BaseModelType | None = None,
        type: ModelType | None = None,  # noqa: A002 - the contract's word
        format: ModelFormat | None = None,  # noqa: A002 - the contract's word
    ) -> list[Any]:
        """Return records of models with these attributes."""

    def get_absolute_path(self, config_or_path: Any) -> Path:
        """Return an absolute path; relative ones are taken from the models folder."""

    def download_and_cache_model(self, source: str) -> Path:
        """Download a URL or repo id once; not registered as a model."""

    def load_local_model(
        self, model_path: Path, loader: Callable[[Path], Any] | None = None
    ) -> LoadedModelWithoutConfig:
        """Load a file; without a loader as safetensors or with weights_only."""

    def load_remote_model(self, source: str, loader: Callable[[Path], Any] | None = None) -> LoadedModelWithoutConfig:
        """Load the same, after downloading or from the download cache."""


class LoggerInterface(Protocol):
    """The log."""

    def debug(self, message: str) -> None:
        """Log for developers."""

    def info(self, message: str) -> None:
        """Log what happens."""

    def warning(self, message: str) -> None:
        """Log what is odd."""

    def error(self, message: str) -> None:
        """Log what went wrong."""


class ConfigInterface(Protocol):
    """The settings."""

    def get(self) -> Any:
        """Return the app's settings."""

    def open_text(self, path: str) -> AbstractContextManager[TextIO]:
        """Open a text file of the server's machine that the item's user may read: the only way for nodes to a named file."""


class UtilInterface(Protocol):
    """Progress and cancelling."""

    def signal_progress(
        self,
        message: str,
        percentage: float | None = None,
        image: "Image | None" = None,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        """Tell how far the node is: 0 to 1, or None when unknown."""

    def sd_step_callback(self, intermediate_state: PipelineIntermediateState, base_model: BaseModelType) -> None:
        """Tell how far a denoise loop is, with a preview; raises CanceledException when canceled."""

    def flux_step_callback(self, intermediate_state: PipelineIntermediateState) -> None:
        """Do the same for FLUX."""

    def flux2_step_callback(self, intermediate_state: PipelineIntermediateState) -> None:
        """Do the same for FLUX.2."""

    def is_canceled(self) -> bool:
        """Whether the queue item was canceled."""


class BoardsInterface(Protocol):
    """Boards of the item's user."""

    def create(self, board_name: str) -> BoardLike:
        """Make a board."""

    def get_dto(self, board_id: str) -> BoardLike:
        """Return a board's record."""

    def get_all(self) -> list[BoardLike]:
        """Return the boards the user may see."""

    def add_image_to_board(self, board_id: str, image_name: str) -> None:
        """Put an image on a board."""

    def get_all_image_names_for_board(self, board_id: str) -> list[str]:
        """Names of the images on a board."""


class PresetTexts(Protocol):
    """The two templates of a style preset."""

    @property
    def positive_prompt(self) -> str:
        """What is wanted."""

    @property
    def negative_prompt(self) -> str:
        """What is not wanted."""


class PresetsInterface(Protocol):
    """Style presets and system prompts that the item's user may read."""

    def style_preset(self, style_preset_id: str) -> PresetTexts:
        """Return a style preset's templates."""

    def system_prompt(self, system_prompt_id: str) -> str:
        """Return a system prompt's text."""


class InvocationContext(Protocol):
    """What `invoke` is given."""

    @property
    def images(self) -> ImagesInterface:
        """Images."""

    @property
    def tensors(self) -> TensorsInterface:
        """Tensors."""

    @property
    def conditioning(self) -> ConditioningInterface:
        """Conditionings."""

    @property
    def models(self) -> ModelsInterface:
        """Models."""

    @property
    def logger(self) -> LoggerInterface:
        """The log."""

    @property
    def config(self) -> ConfigInterface:
        """The settings."""

    @property
    def util(self) -> UtilInterface:
        """Progress and cancelling."""

    @property
    def boards(self) -> BoardsInterface:
        """Boards."""

    @property
    def presets(self) -> PresetsInterface:
        """Style presets and system prompts."""

    @property
    def data(self) -> ItemData:
        """The queue item that is being run."""
