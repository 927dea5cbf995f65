"""What a recall may set."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LoRARecallParameter(BaseModel):
    """A LoRA by name."""

    model_config = ConfigDict(allow_inf_nan=False)

    model_name: str = Field(description="The LoRA's name.")
    weight: float = Field(default=0.75, ge=-10, le=10, description="How strong it is.")
    is_enabled: bool = Field(default=True, description="Whether it is on.")


class ControlNetRecallParameter(BaseModel):
    """A control layer: its model by name, its image if any."""

    model_config = ConfigDict(allow_inf_nan=False)

    model_name: str = Field(description="The name of a ControlNet, T2I adapter or control LoRA.")
    image_name: str | None = Field(default=None, description="The image to be controlled by.")
    weight: float = Field(default=1.0, ge=-1, le=2, description="How strong it is.")
    begin_step_percent: float | None = Field(default=None, ge=0, le=1, description="When it begins.")
    end_step_percent: float | None = Field(default=None, ge=0, le=1, description="When it ends.")
    control_mode: Literal["balanced", "more_prompt", "more_control"] | None = Field(
        default=None, description="What has more to say."
    )


class IPAdapterRecallParameter(BaseModel):
    """A reference image with the adapter that looks at it, by name."""

    model_config = ConfigDict(allow_inf_nan=False)

    model_name: str = Field(description="The name of an IP adapter or FLUX Redux.")
    image_name: str | None = Field(default=None, description="The image to look at.")
    weight: float = Field(default=1.0, ge=-1, le=2, description="How strong it is.")
    begin_step_percent: float | None = Field(default=None, ge=0, le=1, description="When it begins.")
    end_step_percent: float | None = Field(default=None, ge=0, le=1, description="When it ends.")
    method: Literal["full", "style", "composition"] | None = Field(default=None, description="What to take over.")
    image_influence: Literal["lowest", "low", "medium", "high", "highest"] | None = Field(
        default=None, description="How strong a FLUX Redux is."
    )


class ReferenceImageRecallParameter(BaseModel):
    """A reference image that the main model looks at by itself."""

    image_name: str = Field(description="The image to look at.")


class RecallParameter(BaseModel):
    """The parameters to set; what is absent stays as it is."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    positive_prompt: str | None = Field(default=None, description="The prompt.")
    negative_prompt: str | None = Field(default=None, description="What not to show.")
    model: str | None = Field(default=None, description="The main model's name.")
    refiner_model: str | None = Field(default=None, description="The refiner's name.")
    vae_model: str | None = Field(default=None, description="The VAE's name.")
    scheduler: str | None = Field(default=None, description="The scheduler.")
    steps: int | None = Field(default=None, ge=1, description="Steps.")
    refiner_steps: int | None = Field(default=None, ge=0, description="Steps of the refiner.")
    cfg_scale: float | None = Field(default=None, description="Guidance by the prompt.")
    cfg_rescale_multiplier: float | None = Field(default=None, description="How far to take oversaturation back.")
    refiner_cfg_scale: float | None = Field(default=None, description="The same of the refiner.")
    guidance: float | None = Field(default=None, description="Guidance of models that were distilled with it.")
    width: int | None = Field(default=None, ge=64, description="Width in pixels.")
    height: int | None = Field(default=None, ge=64, description="Height in pixels.")
    seed: int | None = Field(default=None, ge=0, description="The seed.")
    denoise_strength: float | None = Field(default=None, ge=0, le=1, description="How much to change of an image.")
    refiner_denoise_start: float | None = Field(default=None, ge=0, le=1, description="When the refiner begins.")
    clip_skip: int | None = Field(default=None, ge=0, description="Layers of CLIP to leave out.")
    seamless_x: bool | None = Field(default=None, description="Whether the sides fit together.")
    seamless_y: bool | None = Field(default=None, description="Whether top and bottom fit together.")
    refiner_positive_aesthetic_score: float | None = Field(default=None, description="The score to aim at.")
    refiner_negative_aesthetic_score: float | None = Field(default=None, description="The score to stay away from.")
    loras: list[LoRARecallParameter] | None = Field(default=None, description="The LoRAs, instead of all others.")
    control_layers: list[ControlNetRecallParameter] | None = Field(
        default=None, description="The control layers, instead of all others."
    )
    ip_adapters: list[IPAdapterRecallParameter] | None = Field(
        default=None, description="The reference images with adapters."
    )
    reference_images: list[ReferenceImageRecallParameter] | None = Field(
        default=None, description="The reference images without adapters."
    )
