"""Settings that a model suggests to whoever uses it; it knows their limits and not which model has which."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES

WEIGHT_SLIDER = (-1.0, 2.0)
"""The ends of a LoRA's weight slider where a record doesn't set them."""


def _unique(words: list[str]) -> list[str]:
    return list(dict.fromkeys(words))


TriggerPhrases = Annotated[list[str], AfterValidator(_unique), Field(json_schema_extra={"uniqueItems": True})]
"""Words that make a model do what it was trained for, each once, in the order given."""


class MainModelDefaultSettings(BaseModel):
    """What to start from with a main model."""

    model_config = ConfigDict(extra="forbid")

    vae: str | None = Field(default=None, description="Key of the VAE to use instead of the model's own")
    vae_precision: Literal["fp16", "fp32"] | None = Field(default=None, description="Number type of the VAE")
    scheduler: SCHEDULER_NAME_VALUES | None = Field(default=None, description="Scheduler")
    steps: int | None = Field(default=None, gt=0, description="Denoising steps")
    cfg_scale: float | None = Field(default=None, ge=1, description="Classifier-free guidance scale")
    cfg_rescale_multiplier: float | None = Field(default=None, ge=0, lt=1, description="Rescale of the guided noise")
    width: int | None = Field(default=None, multiple_of=8, ge=64, description="Width in pixels")
    height: int | None = Field(default=None, multiple_of=8, ge=64, description="Height in pixels")
    guidance: float | None = Field(default=None, ge=1, description="Distilled guidance")
    cpu_only: bool | None = Field(default=None, description="Run text encoders on the CPU")
    fp8_storage: bool | None = Field(default=None, description="Keep weights in 8 bits and compute in more")


class LoraModelDefaultSettings(BaseModel):
    """What to start from with a LoRA."""

    model_config = ConfigDict(extra="forbid")

    weight: float | None = Field(default=None, description="Weight, inside the slider's ends")
    weight_min: float | None = Field(default=None, description="Lower end of the weight slider; null: -1")
    weight_max: float | None = Field(default=None, description="Upper end of the weight slider; null: 2")

    @model_validator(mode="after")
    def _weight_is_on_the_slider(self) -> Self:
        low = WEIGHT_SLIDER[0] if self.weight_min is None else self.weight_min
        high = WEIGHT_SLIDER[1] if self.weight_max is None else self.weight_max
        if low >= high:
            raise ValueError(f"weight_min ({low}) must be less than weight_max ({high})")
        if self.weight is not None and not low <= self.weight <= high:
            raise ValueError(f"weight ({self.weight}) must lie between {low} and {high}")
        return self


class ControlAdapterDefaultSettings(BaseModel):
    """What to start from with a ControlNet, T2I adapter or control LoRA."""

    model_config = ConfigDict(extra="forbid")

    preprocessor: str | None = Field(description="Image processor that makes this model's control images")
    fp8_storage: bool | None = Field(default=None, description="Keep weights in 8 bits and compute in more")


class ExternalApiModelDefaultSettings(BaseModel):
    """What to start from with a model behind somebody else's service."""

    model_config = ConfigDict(extra="forbid")

    width: int | None = Field(default=None, gt=0, description="Width in pixels")
    height: int | None = Field(default=None, gt=0, description="Height in pixels")
    num_images: int | None = Field(default=None, gt=0, description="Images for each request")


AnyDefaultSettings = (
    MainModelDefaultSettings
    | LoraModelDefaultSettings
    | ControlAdapterDefaultSettings
    | ExternalApiModelDefaultSettings
)
