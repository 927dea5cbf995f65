"""A context for nodes that stores images and tensors in dictionaries, and records what is saved and which messages are sent."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from invokeclone.graph.context import CanceledException
from invokeclone.graph.vocabulary.fields import ImageField, MetadataField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ImageCategory
from invokeclone.kit.config.settings import Settings


@dataclass(frozen=True)
class FakeRecord:
    """What nodes read of an image record."""

    image_name: str
    width: int
    height: int
    image_category: ImageCategory = ImageCategory.GENERAL
    board_id: str | None = None
    metadata: MetadataField | None = None


@dataclass
class FakeImages:
    """The images face: `put` a picture in, read `saved` afterwards."""

    pictures: dict[str, Image.Image] = field(default_factory=dict)
    records: dict[str, FakeRecord] = field(default_factory=dict)
    saved: list[FakeRecord] = field(default_factory=list)

    def put(self, image: Image.Image, name: str | None = None, **fields: Any) -> ImageField:
        """Store an image and return the field that names it."""
        name = name or f"{len(self.pictures)}.png"
        self.pictures[name] = image.copy()
        self.records[name] = FakeRecord(name, *image.size, **fields)
        return ImageField(image_name=name)

    def last(self) -> Image.Image:
        """Return the picture that was saved last."""
        return self.pictures[self.saved[-1].image_name]

    def save(
        self,
        image: Image.Image,
        board_id: str | None = None,
        image_category: ImageCategory = ImageCategory.GENERAL,
        metadata: MetadataField | None = None,
    ) -> FakeRecord:
        named = self.put(image, board_id=board_id, image_category=image_category, metadata=metadata)
        self.saved.append(self.records[named.image_name])
        return self.saved[-1]

    def get_pil(self, image_name: str, mode: str | None = None) -> Image.Image:
        image = self.pictures[image_name]
        return image.convert(mode) if mode and mode != image.mode else image.copy()

    def get_dto(self, image_name: str) -> FakeRecord:
        return self.records[image_name]

    def get_metadata(self, image_name: str) -> MetadataField | None:
        return self.records[image_name].metadata

    def get_path(self, image_name: str, thumbnail: bool = False) -> Path:
        return Path("thumbnails" if thumbnail else "") / image_name


@dataclass
class FakeStore:
    """The tensors or the conditioning face."""

    kept: dict[str, Any] = field(default_factory=dict)

    def save(self, value: Any) -> str:
        self.kept[f"t{len(self.kept)}"] = value
        return f"t{len(self.kept) - 1}"

    def load(self, name: str) -> Any:
        value = self.kept[name]
        return value.clone() if hasattr(value, "clone") else value


@dataclass
class FakeLogger:
    """The logger face."""

    lines: list[tuple[str, str]] = field(default_factory=list)

    def debug(self, message: str) -> None:
        self.lines.append(("debug", message))

    def info(self, message: str) -> None:
        self.lines.append(("info", message))

    def warning(self, message: str) -> None:
        self.lines.append(("warning", message))

    def error(self, message: str) -> None:
        self.lines.append(("error", message))


@dataclass
class FakeUtil:
    """The util face: events are in `progress` and `steps`; set `canceled`, or `cancel_at` to a step, to cancel."""

    progress: list[tuple[str, float | None]] = field(default_factory=list)
    steps: list[Any] = field(default_factory=list)
    bases: set[Any] = field(default_factory=set)
    canceled: bool = False
    cancel_at: int | None = None

    def signal_progress(
        self,
        message: str,
        percentage: float | None = None,
        image: Image.Image | None = None,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        self.progress.append((message, percentage))

    def sd_step_callback(self, intermediate_state: Any, base_model: Any) -> None:
        self.steps.append(intermediate_state)
        self.bases.add(base_model)
        if self.cancel_at is not None and intermediate_state.step >= self.cancel_at:
            raise CanceledException

    def flux_step_callback(self, intermediate_state: Any) -> None:
        self.sd_step_callback(intermediate_state, BaseModelType.Flux)

    def flux2_step_callback(self, intermediate_state: Any) -> None:
        self.sd_step_callback(intermediate_state, BaseModelType.Flux2)

    def is_canceled(self) -> bool:
        return self.canceled


@dataclass
class FakeConfig:
    """The config face; a test may replace `settings`."""

    settings: Any

    def get(self) -> Any:
        return self.settings


@dataclass
class FakeContext:
    """The faces; those without a fake of their own are set by the test that needs them."""

    images: FakeImages = field(default_factory=FakeImages)
    tensors: FakeStore = field(default_factory=FakeStore)
    conditioning: FakeStore = field(default_factory=FakeStore)
    logger: FakeLogger = field(default_factory=FakeLogger)
    util: FakeUtil = field(default_factory=FakeUtil)
    models: Any = None
    boards: Any = None
    presets: Any = None
    config: Any = field(default_factory=lambda: FakeConfig(Settings()))
    data: Any = field(default_factory=SimpleNamespace)
