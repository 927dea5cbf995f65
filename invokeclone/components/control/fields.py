"""Field and output types of ControlNet, IP-Adapter and T2I-Adapter, and their metadata."""

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from invokeclone.graph.invocations.invocation import BaseInvocationOutput, invocation_output
from invokeclone.graph.vocabulary.fields import ImageField, OutputField, TensorField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField

CONTROLNET_MODE_VALUES = Literal["balanced", "more_prompt", "more_control", "unbalanced"]
CONTROLNET_RESIZE_VALUES = Literal["just_resize", "crop_resize", "fill_resize", "just_resize_simple"]
IP_ADAPTER_METHODS = Literal["full", "style", "composition", "style_strong", "style_precise"]
CLIP_VISION_MODELS = Literal["ViT-L", "ViT-H", "ViT-G"]

_MIN_WEIGHT, _MAX_WEIGHT = -1, 2


def check_weights(weights: float | list[float]) -> None:
    """Raise ValueError when a control weight is outside -1..2, or a list of weights is empty."""
    listed = weights if isinstance(weights, list) else [weights]
    if not listed:
        message = "A list of control weights must not be empty"
        raise ValueError(message)
    for weight in listed:
        if not _MIN_WEIGHT <= weight <= _MAX_WEIGHT:
            message = f"Control weights must be within {_MIN_WEIGHT} to {_MAX_WEIGHT}, not {weight}"
            raise ValueError(message)


def check_steps(begin: float, end: float) -> None:
    """Raise ValueError when a control would end before it begins."""
    if begin >= end:
        message = f"Begin step percent ({begin}) must be less than end step percent ({end})"
        raise ValueError(message)


class ControlChecks(BaseModel):
    """Mixin of nodes with `weight` or `control_weight`, `begin_step_percent` and `end_step_percent`: checks them."""

    @field_validator("control_weight", "weight", check_fields=False)
    @classmethod
    def _check_weights(cls, value: float | list[float]) -> float | list[float]:
        check_weights(value)
        return value

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> Self:
        node: Any = self
        check_steps(node.begin_step_percent, node.end_step_percent)
        return self


def _begin() -> Any:
    return Field(default=0.0, ge=0, le=1, description="Where it starts, as a fraction of the steps")


def _end() -> Any:
    return Field(default=1.0, ge=0, le=1, description="Where it stops, as a fraction of the steps")


class ControlField(BaseModel):
    """A ControlNet with its control image and settings."""

    image: ImageField = Field(description="The control image")
    control_model: ModelIdentifierField = Field(description="The ControlNet")
    control_weight: float | list[float] = Field(default=1.0, description="Weight, or one weight per step")
    begin_step_percent: float = _begin()
    end_step_percent: float = _end()
    control_mode: CONTROLNET_MODE_VALUES = Field(default="balanced", description="Balance of prompt and control")
    resize_mode: CONTROLNET_RESIZE_VALUES = Field(default="just_resize", description="How the image is resized")

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_weights(self.control_weight)
        check_steps(self.begin_step_percent, self.end_step_percent)
        return self


class IPAdapterField(BaseModel):
    """An IP-Adapter with its prompt image(s) and settings."""

    image: ImageField | list[ImageField] = Field(description="The prompt image(s)")
    ip_adapter_model: ModelIdentifierField = Field(description="The IP-Adapter")
    image_encoder_model: ModelIdentifierField = Field(description="The CLIP vision model")
    weight: float | list[float] = Field(default=1.0, description="Weight, or one weight per step")
    target_blocks: list[str] = Field(
        default=[], description="UNet blocks that it is applied to; an empty list means all"
    )
    method: str = Field(default="full", description="Which aspects of the image are used")
    begin_step_percent: float = _begin()
    end_step_percent: float = _end()
    mask: TensorField | None = Field(default=None, description="Boolean mask of the region it applies to")

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_weights(self.weight)
        check_steps(self.begin_step_percent, self.end_step_percent)
        return self


class T2IAdapterField(BaseModel):
    """A T2I-Adapter with its control image and settings."""

    image: ImageField = Field(description="The control image")
    t2i_adapter_model: ModelIdentifierField = Field(description="The T2I-Adapter")
    weight: float | list[float] = Field(default=1.0, description="Weight, or one weight per step")
    begin_step_percent: float = _begin()
    end_step_percent: float = _end()
    resize_mode: CONTROLNET_RESIZE_VALUES = Field(default="just_resize", description="How the image is resized")

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_weights(self.weight)
        check_steps(self.begin_step_percent, self.end_step_percent)
        return self


class LoRAMetadataField(BaseModel):
    """A LoRA as recorded in metadata."""

    model: ModelIdentifierField = Field(description="The LoRA")
    weight: float = Field(description="Weight with which it was applied")


class ControlNetMetadataField(ControlField):
    """A ControlNet as recorded in metadata."""

    processed_image: ImageField | None = Field(default=None, description="The image after preprocessing")


class T2IAdapterMetadataField(T2IAdapterField):
    """A T2I-Adapter as recorded in metadata."""

    processed_image: ImageField | None = Field(default=None, description="The image after preprocessing")


class IPAdapterMetadataField(BaseModel):
    """An IP-Adapter as recorded in metadata."""

    image: ImageField = Field(description="The prompt image")
    ip_adapter_model: ModelIdentifierField = Field(description="The IP-Adapter")
    clip_vision_model: CLIP_VISION_MODELS = Field(description="The CLIP vision model")
    method: IP_ADAPTER_METHODS = Field(description="Which aspects of the image were used")
    weight: float | list[float] = Field(description="Weight, or one weight per step")
    begin_step_percent: float = Field(description="Where it started, as a fraction of the steps")
    end_step_percent: float = Field(description="Where it stopped, as a fraction of the steps")


@invocation_output("control_output")
class ControlOutput(BaseInvocationOutput):
    """A ControlNet, ready to apply."""

    control: ControlField = OutputField(description="The ControlNet")


@invocation_output("ip_adapter_output")
class IPAdapterOutput(BaseInvocationOutput):
    """An IP-Adapter, ready to apply."""

    ip_adapter: IPAdapterField = OutputField(description="The IP-Adapter", title="IP-Adapter")


@invocation_output("t2i_adapter_output")
class T2IAdapterOutput(BaseInvocationOutput):
    """A T2I-Adapter, ready to apply."""

    t2i_adapter: T2IAdapterField = OutputField(description="The T2I-Adapter", title="T2I Adapter")
