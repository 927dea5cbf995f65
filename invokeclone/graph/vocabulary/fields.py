"""Declaration of node inputs and outputs, and references to stored objects.

`InputField` and `OutputField` take InvokeAI's keyword arguments, which third-party nodes use.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

from pydantic import BaseModel, Field, RootModel, field_validator
from pydantic_core import PydanticUndefined, to_jsonable_python

from invokeclone.graph.vocabulary.descriptions import FieldDescriptions
from invokeclone.graph.vocabulary.hints import (
    FieldKind,
    Input,
    InputFieldJSONSchemaExtra,
    OutputFieldJSONSchemaExtra,
    UIComponent,
    UIConfigBase,
    UIType,
)

__all__ = [
    "BoardField",
    "BoundingBoxField",
    "ColorField",
    "ConditioningField",
    "DenoiseMaskField",
    "FieldDescriptions",
    "FieldKind",
    "ImageField",
    "Input",
    "InputField",
    "InputFieldJSONSchemaExtra",
    "LatentsField",
    "MetadataField",
    "OutputField",
    "OutputFieldJSONSchemaExtra",
    "StylePresetField",
    "SystemPromptField",
    "TensorField",
    "UIComponent",
    "UIConfigBase",
    "UIType",
    "VideoField",
    "WithBoard",
    "WithMetadata",
    "WithWorkflow",
]


def _as_list(value: str | Iterable[str] | None) -> list[str] | None:
    """Return one value or several as a list."""
    if value is None:
        return None
    return [value] if isinstance(value, str) else list(value)


def _without_unset(**arguments: Any) -> dict[str, Any]:
    """Return the arguments that are set."""
    return {name: value for name, value in arguments.items() if value is not PydanticUndefined and value is not None}


def InputField(  # noqa: N802 - the name that third-party nodes use
    default: Any = PydanticUndefined,
    *,
    default_factory: Callable[[], Any] | None = None,
    title: str | None = None,
    description: str | None = None,
    pattern: str | None = None,
    strict: bool | None = None,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    multiple_of: float | None = None,
    allow_inf_nan: bool | None = None,
    max_digits: int | None = None,
    decimal_places: int | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    input: Input = Input.Any,  # noqa: A002 - the name in the schema
    ui_type: UIType | str | None = None,
    ui_component: UIComponent | None = None,
    ui_hidden: bool | None = None,
    ui_order: int | None = None,
    ui_choice_labels: dict[str, str] | None = None,
    ui_model_base: Any = None,
    ui_model_type: Any = None,
    ui_model_variant: Any = None,
    ui_model_format: Any = None,
    ui_model_provider_id: Any = None,
) -> Any:
    """Declare an input of a node.

    An input without a default is required when the node runs but may be absent from a graph; the `invocation` decorator
    makes it nullable. Only an input that cannot be connected (`Input.Direct`) is required in the graph.
    """
    if default is ...:
        default = PydanticUndefined
    required = default is PydanticUndefined and default_factory is None
    extra: dict[str, Any] = {"input": input.value, "field_kind": FieldKind.Input.value, "orig_required": required}
    if not required:
        extra["orig_default"] = to_jsonable_python(default_factory() if default_factory else default)
    extra |= _without_unset(
        ui_type=ui_type,
        ui_component=ui_component,
        ui_hidden=ui_hidden,
        ui_order=ui_order,
        ui_choice_labels=ui_choice_labels,
        ui_model_base=_as_list(ui_model_base),
        ui_model_type=_as_list(ui_model_type),
        ui_model_variant=_as_list(ui_model_variant),
        ui_model_format=_as_list(ui_model_format),
        ui_model_provider_id=_as_list(ui_model_provider_id),
    )
    limits = _without_unset(
        title=title,
        description=description,
        pattern=pattern,
        strict=strict,
        gt=gt,
        ge=ge,
        lt=lt,
        le=le,
        multiple_of=multiple_of,
        allow_inf_nan=allow_inf_nan,
        max_digits=max_digits,
        decimal_places=decimal_places,
        min_length=min_length,
        max_length=max_length,
    )
    if default_factory is not None:
        return Field(default_factory=default_factory, json_schema_extra=extra, **limits)
    return Field(default=default, json_schema_extra=extra, **limits)


def with_schema(field: Any, **entries: Any) -> Any:
    """Return an input with additional entries in its published schema, which pydantic does not check."""
    field.json_schema_extra = {**(field.json_schema_extra or {}), **entries}
    return field


def OutputField(  # noqa: N802 - the name that third-party nodes use
    default: Any = PydanticUndefined,
    *,
    default_factory: Callable[[], Any] | None = None,
    title: str | None = None,
    description: str | None = None,
    pattern: str | None = None,
    strict: bool | None = None,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    multiple_of: float | None = None,
    allow_inf_nan: bool | None = None,
    max_digits: int | None = None,
    decimal_places: int | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    ui_type: UIType | str | None = None,
    ui_hidden: bool = False,
    ui_order: int | None = None,
) -> Any:
    """Declare an output of a node."""
    extra: dict[str, Any] = {"field_kind": FieldKind.Output.value, "ui_hidden": ui_hidden}
    extra |= _without_unset(ui_type=ui_type, ui_order=ui_order)
    limits = _without_unset(
        title=title,
        description=description,
        pattern=pattern,
        strict=strict,
        gt=gt,
        ge=ge,
        lt=lt,
        le=le,
        multiple_of=multiple_of,
        allow_inf_nan=allow_inf_nan,
        max_digits=max_digits,
        decimal_places=decimal_places,
        min_length=min_length,
        max_length=max_length,
    )
    if default_factory is not None:
        return Field(default_factory=default_factory, json_schema_extra=extra, **limits)
    return Field(default=default, json_schema_extra=extra, **limits)


class ImageField(BaseModel):
    """Reference to an image by name."""

    image_name: str = Field(description="Name of the image")


class VideoField(BaseModel):
    """Reference to a video by name."""

    video_name: str = Field(description="Name of the video")


class BoardField(BaseModel):
    """Reference to a board by id."""

    board_id: str = Field(description="Id of the board")


class StylePresetField(BaseModel):
    """Reference to a style preset by id."""

    style_preset_id: str = Field(description="Id of the style preset")


class SystemPromptField(BaseModel):
    """Reference to a system prompt by id."""

    system_prompt_id: str = Field(description="Id of the system prompt")


class TensorField(BaseModel):
    """Reference to a stored tensor by name."""

    tensor_name: str = Field(description="Name of the tensor")


class LatentsField(BaseModel):
    """Reference to stored latents by name, with the seed of their noise."""

    latents_name: str = Field(description="Name of the latents")
    seed: int | None = Field(default=None, description="Seed of their noise")


class DenoiseMaskField(BaseModel):
    """Reference to an inpainting mask and to the latents of the masked image."""

    mask_name: str = Field(description="Name of the mask tensor")
    masked_latents_name: str | None = Field(default=None, description="Name of the latents of the masked image")
    gradient: bool = Field(default=False, description="Whether mask values say when a pixel starts to change")


class ConditioningField(BaseModel):
    """Reference to a stored text conditioning by name, with the region it applies to."""

    conditioning_name: str = Field(description="Name of the conditioning")
    mask: TensorField | None = Field(default=None, description="Boolean mask of the region; default: the whole image")


class ColorField(BaseModel):
    """An RGBA color, each channel 0 to 255."""

    r: int = Field(ge=0, le=255, description="Red")
    g: int = Field(ge=0, le=255, description="Green")
    b: int = Field(ge=0, le=255, description="Blue")
    a: int = Field(ge=0, le=255, description="Alpha (opacity)")

    def tuple(self) -> tuple[int, int, int, int]:
        """Return red, green, blue, alpha."""
        return (self.r, self.g, self.b, self.a)


class BoundingBoxField(BaseModel):
    """A rectangle in pixels; x_max and y_max are exclusive."""

    x_min: int = Field(description="Left edge, inclusive")
    x_max: int = Field(description="Right edge, exclusive")
    y_min: int = Field(description="Top edge, inclusive")
    y_max: int = Field(description="Bottom edge, exclusive")
    score: float | None = Field(default=None, ge=0.0, le=1.0, description="Confidence of the detector")

    @field_validator("x_max")
    @classmethod
    def _right_of_left(cls, value: int, info: Any) -> int:
        if "x_min" in info.data and value < info.data["x_min"]:
            message = f"x_min ({info.data['x_min']}) is greater than x_max ({value})"
            raise ValueError(message)
        return value

    @field_validator("y_max")
    @classmethod
    def _below_top(cls, value: int, info: Any) -> int:
        if "y_min" in info.data and value < info.data["y_min"]:
            message = f"y_min ({info.data['y_min']}) is greater than y_max ({value})"
            raise ValueError(message)
        return value

    def tuple(self) -> tuple[int, int, int, int]:
        """Return left, top, right, bottom: the order of PIL."""
        return (self.x_min, self.y_min, self.x_max, self.y_max)


class MetadataField(RootModel[dict[str, Any]]):
    """Metadata of an image, with arbitrary keys."""

    root: dict[str, Any]


def _internal(source: Literal["connection", "direct"], description: str) -> Any:
    """Return a field of a node mixin, which editors handle separately from inputs."""
    extra: dict[str, Any] = {
        "field_kind": FieldKind.Internal.value,
        "input": source,
        "orig_required": False,
        "ui_hidden": False,
    }
    return Field(default=None, description=description, json_schema_extra=extra)


class WithMetadata(BaseModel):
    """Mixin for nodes that save metadata with their image."""

    metadata: MetadataField | None = _internal("connection", FieldDescriptions.metadata)


class WithBoard(BaseModel):
    """Mixin for nodes that can add their image to a board."""

    board: BoardField | None = _internal("direct", FieldDescriptions.board)


class WithWorkflow:
    """Mixin without effect, so that nodes written for older versions can be imported."""

    workflow: Any = None
