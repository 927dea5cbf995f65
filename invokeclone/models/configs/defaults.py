"""Schemas of default settings of models, with their limits."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES

WEIGHT_SLIDER = (-1.0, 2.0)
"""Range of a LoRA's weight slider unless a record sets it."""


def _unique(words: list[str]) -> list[str]:
    return list(dict.fromkeys(words))


TriggerPhrases = Annotated[list[str], AfterValidator(_unique), Field(json_schema_extra={"uniqueItems": True})]
"""Phrases that trigger what a model was trained for, without duplicates, in the order given."""


class MainModelDefaultSettings(BaseModel):
    """Default settings of a main model."""

    model_config = ConfigDict(extra="forbid")

    vae: str | None = Field(default=None, description="Key of the VAE to use instead of the model's own VAE")
    vae_precision: Literal["fp16", "fp32"] | None = Field(default=None, description="Precision of the VAE")
    scheduler: SCHEDULER_NAME_VALUES | None = Field(default=None, description="Scheduler")
    steps: int | None = Field(default=None, gt=0, description="Denoising steps")
    cfg_scale: float | None = Field(default=None, ge=1, description="Classifier-free guidance scale")
    cfg_rescale_multiplier: float | None = Field(
        default=None, ge=0, lt=1, description="Rescale multiplier of classifier-free guidance"
    )
    width: int | None = Field(default=None, multiple_of=8, ge=64, description="Width in pixels")
    height: int | None = Field(default=None, multiple_of=8, ge=64, description="Height in pixels")
    guidance: float | None = Field(default=None, ge=1, description="Distilled guidance scale")
    cpu_only: bool | None = Field(default=None, description="Whether to run the text encoders on the CPU")
    fp8_storage: bool | None = Field(
        default=None, description="Whether to store weights as FP8 and cast them to a higher precision for computation"
    )


class LoraModelDefaultSettings(BaseModel):
    """Default settings of a LoRA."""

    model_config = ConfigDict(extra="forbid")

    weight: float | None = Field(default=None, description="Weight, within the range of the slider")
    weight_min: float | None = Field(default=None, description="Minimum of the weight slider; null means -1")
    weight_max: float | None = Field(default=None, description="Maximum of the weight slider; null means 2")

    @model_validator(mode="after")
    def _weight_is_on_the_slider(self) -> Self:
        low = WEIGHT_SLIDER[0] if self.weight_min is None else self.weight_min
        high = WEIGHT_SLIDER[1] if self.weight_max is None else self.weight_max
        if low >= high:
            raise ValueError(f"weight_min ({low}) must be less than weight_max ({high})")
        if self.weight is not None and not low <= self.weight <= high:
            raise ValueError(f"weight ({self.weight}) must be between {low} and {high}")
        return self


class ControlAdapterDefaultSettings(BaseModel):
    """Default settings of a ControlNet, T2I adapter or control LoRA."""

    model_config = ConfigDict(extra="forbid")

    preprocessor: str | None = Field(description="Image processor that creates control images for the model")
    fp8_storage: bool | None = Field(
        default=None, description="Whether to store weights as FP8 and cast them to a higher precision for computation"
    )


class ExternalApiModelDefaultSettings(BaseModel):
    """Default settings of an external model."""

    model_config = ConfigDict(extra="forbid")

    width: int | None = Field(default=None, gt=0, description="Width in pixels")
    height: int | None = Field(default=None, gt=0, description="Height in pixels")
    num_images: int | None = Field(default=None, gt=0, description="Number of images per request")


AnyDefaultSettings = (
    MainModelDefaultSettings
    | LoraModelDefaultSettings
    | ControlAdapterDefaultSettings
    | ExternalApiModelDefaultSettings
)
