"""The InvocationContext: Protocols of InvokeAI's nine interfaces, and of one for presets, that nodes use.

The worker implements them.
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
"""A torch.Tensor; this package does not import torch, not even for annotations."""

ImageMode = Literal["L", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"]


class CanceledException(Exception):
    """The queue item has been canceled; raised inside a node to stop it."""


class ImageLike(Protocol):
    """Attributes of an image record that nodes use."""

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
    """Attributes of a board record that nodes use."""

    @property
    def board_id(self) -> str:
        """The board's id."""

    @property
    def board_name(self) -> str:
        """The board's name."""


class LoadedModel(Protocol):
    """A model in the model cache; as a context manager it keeps the model on the device and yields it."""

    @property
    def config(self) -> Any:
        """The model's record."""

    @property
    def model(self) -> Any:
        """The model, on whichever device it currently is."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *details: object) -> None: ...

    def model_on_device(
        self, working_mem_bytes: int | None = None
    ) -> AbstractContextManager[tuple[dict[str, Any] | None, Any]]:
        """Return a context manager that yields the state dict in RAM (or None) and the model on the device."""


class LoadedModelWithoutConfig(Protocol):
    """A model loaded from a file, without a record."""

    @property
    def model(self) -> Any:
        """The model, on whichever device it currently is."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *details: object) -> None: ...

    def model_on_device(
        self, working_mem_bytes: int | None = None
    ) -> AbstractContextManager[tuple[dict[str, Any] | None, Any]]:
        """Return a context manager that yields the state dict in RAM (or None) and the model on the device."""


@dataclass
class PipelineIntermediateState:
    """State of a denoise loop after a step."""

    step: int
    order: int
    total_steps: int
    timestep: int
    latents: Tensor
    predicted_original: Tensor | None = None


@dataclass(frozen=True)
class ItemData:
    """The running queue item (the context's ninth interface)."""

    queue_item: Any
    invocation: Any
    source_invocation_id: str


class ImagesInterface(Protocol):
    """Reads and saves images."""

    def save(
        self,
        image: "Image",
        board_id: str | None = None,
        image_category: ImageCategory = ImageCategory.GENERAL,
        metadata: MetadataField | None = None,
    ) -> ImageLike:
        """Save a PIL image; board and metadata default to those in the node's own fields."""

    def get_pil(self, image_name: str, mode: ImageMode | None = None) -> "Image":
        """Return a copy of the image, converted to `mode` if given."""

    def get_metadata(self, image_name: str) -> MetadataField | None:
        """Return the image's metadata, if it has any."""

    def get_dto(self, image_name: str) -> ImageLike:
        """Return the image's record."""

    def get_path(self, image_name: str, thumbnail: bool = False) -> Path:
        """Return the path of the file, or of its thumbnail."""


class TensorsInterface(Protocol):
    """Saves and loads tensors that pass between nodes."""

    def save(self, tensor: Tensor) -> str:
        """Save a tensor and return its name."""

    def load(self, name: str) -> Tensor:
        """Return a copy of the tensor."""


class ConditioningInterface(Protocol):
    """Saves and loads text conditionings that pass between nodes."""

    def save(self, conditioning_data: Any) -> str:
        """Save a ConditioningFieldData and return its name."""

    def load(self, name: str) -> Any:
        """Return a copy of the ConditioningFieldData."""


class ModelsInterface(Protocol):
    """Reads model records and loads models."""

    def exists(self, identifier: str | ModelIdentifierField) -> bool:
        """Return whether the model has a record."""

    def load(self, identifier: str | ModelIdentifierField, submodel_type: SubModelType | None = None) -> LoadedModel:
        """Load a model or one of its submodels."""

    def load_by_attrs(
        self,
        name: str,
        base: BaseModelType,
        type: ModelType,  # noqa: A002 - InvokeAI's parameter name
        submodel_type: SubModelType | None = None,
    ) -> LoadedModel:
        """Load the only model with these attributes; raise an error if there is none or more than one."""

    def get_config(self, identifier: str | ModelIdentifierField) -> Any:
        """Return the model's record; raise UnknownModelException if there is none."""

    def search_by_path(self, path: Path) -> list[Any]:
        """Return the records of models at a path."""

    def search_by_attrs(
        self,
        name: str | None = None,
        base: BaseModelType | None = None,
        type: ModelType | None = None,  # noqa: A002 - InvokeAI's parameter name
        format: ModelFormat | None = None,  # noqa: A002 - InvokeAI's parameter name
    ) -> list[Any]:
        """Return the records of models with these attributes."""

    def get_absolute_path(self, config_or_path: Any) -> Path:
        """Return an absolute path; relative paths are resolved against the models folder."""

    def download_and_cache_model(self, source: str) -> Path:
        """Download a URL or repo id, unless cached, and return its path; it is not registered as a model."""

    def load_local_model(
        self, model_path: Path, loader: Callable[[Path], Any] | None = None
    ) -> LoadedModelWithoutConfig:
        """Load a file with `loader`, or by default as safetensors or with torch.load and weights_only."""

    def load_remote_model(self, source: str, loader: Callable[[Path], Any] | None = None) -> LoadedModelWithoutConfig:
        """Load a URL or repo id as `load_local_model` does, downloading it first if it is not in the download cache."""


class LoggerInterface(Protocol):
    """Writes to the log."""

    def debug(self, message: str) -> None:
        """Log a debug message."""

    def info(self, message: str) -> None:
        """Log an informational message."""

    def warning(self, message: str) -> None:
        """Log a warning."""

    def error(self, message: str) -> None:
        """Log an error."""


class ConfigInterface(Protocol):
    """Gives access to the settings and to files of the server."""

    def get(self) -> Any:
        """Return the app's settings."""

    def open_text(self, path: str) -> AbstractContextManager[TextIO]:
        """Open a text file on the server that the item's user may read. Nodes open user-named files only this way."""


class UtilInterface(Protocol):
    """Reports progress and checks for cancellation."""

    def signal_progress(
        self,
        message: str,
        percentage: float | None = None,
        image: "Image | None" = None,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        """Report the node's progress: a fraction from 0 to 1, or None if unknown."""

    def sd_step_callback(self, intermediate_state: PipelineIntermediateState, base_model: BaseModelType) -> None:
        """Report a denoise step with a preview; raise CanceledException if the item has been canceled."""

    def flux_step_callback(self, intermediate_state: PipelineIntermediateState) -> None:
        """Report a denoise step of FLUX, as `sd_step_callback` does."""

    def flux2_step_callback(self, intermediate_state: PipelineIntermediateState) -> None:
        """Report a denoise step of FLUX.2, as `sd_step_callback` does."""

    def is_canceled(self) -> bool:
        """Return whether the queue item has been canceled."""


class BoardsInterface(Protocol):
    """Reads and changes the boards of the item's user."""

    def create(self, board_name: str) -> BoardLike:
        """Create a board."""

    def get_dto(self, board_id: str) -> BoardLike:
        """Return a board's record."""

    def get_all(self) -> list[BoardLike]:
        """Return the boards the user may see."""

    def add_image_to_board(self, board_id: str, image_name: str) -> None:
        """Add an image to a board."""

    def get_all_image_names_for_board(self, board_id: str) -> list[str]:
        """Return the names of the images on a board."""


class PresetTexts(Protocol):
    """The two templates of a style preset."""

    @property
    def positive_prompt(self) -> str:
        """Template of the positive prompt."""

    @property
    def negative_prompt(self) -> str:
        """Template of the negative prompt."""


class PresetsInterface(Protocol):
    """Reads style presets and system prompts that the item's user may read."""

    def style_preset(self, style_preset_id: str) -> PresetTexts:
        """Return a style preset's templates."""

    def system_prompt(self, system_prompt_id: str) -> str:
        """Return a system prompt's text."""


class InvocationContext(Protocol):
    """The interfaces that a node's `invoke` receives."""

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
        """Progress and cancellation."""

    @property
    def boards(self) -> BoardsInterface:
        """Boards."""

    @property
    def presets(self) -> PresetsInterface:
        """Style presets and system prompts."""

    @property
    def data(self) -> ItemData:
        """The running queue item."""
