"""Request schemas of recall."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LoRARecallParameter(BaseModel):
    """A LoRA by name."""

    model_config = ConfigDict(allow_inf_nan=False)

    model_name: str = Field(description="The LoRA's name.")
    weight: float = Field(default=0.75, ge=-10, le=10, description="Weight of the LoRA.")
    is_enabled: bool = Field(default=True, description="Whether the LoRA is enabled.")


class ControlNetRecallParameter(BaseModel):
    """A control layer: its model by name, and an optional image."""

    model_config = ConfigDict(allow_inf_nan=False)

    model_name: str = Field(description="The name of a ControlNet, T2I adapter or control LoRA.")
    image_name: str | None = Field(default=None, description="The control image.")
    weight: float = Field(default=1.0, ge=-1, le=2, description="Weight of the control.")
    begin_step_percent: float | None = Field(default=None, ge=0, le=1, description="Start as a fraction of the steps.")
    end_step_percent: float | None = Field(default=None, ge=0, le=1, description="End as a fraction of the steps.")
    control_mode: Literal["balanced", "more_prompt", "more_control"] | None = Field(
        default=None, description="Balance between prompt and control."
    )


class IPAdapterRecallParameter(BaseModel):
    """A reference image with its adapter by name."""

    model_config = ConfigDict(allow_inf_nan=False)

    model_name: str = Field(description="The name of an IP adapter or FLUX Redux.")
    image_name: str | None = Field(default=None, description="The reference image.")
    weight: float = Field(default=1.0, ge=-1, le=2, description="Weight of the adapter.")
    begin_step_percent: float | None = Field(default=None, ge=0, le=1, description="Start as a fraction of the steps.")
    end_step_percent: float | None = Field(default=None, ge=0, le=1, description="End as a fraction of the steps.")
    method: Literal["full", "style", "composition"] | None = Field(
        default=None, description="What to take from the image."
    )
    image_influence: Literal["lowest", "low", "medium", "high", "highest"] | None = Field(
        default=None, description="Influence of the image with FLUX Redux."
    )


class ReferenceImageRecallParameter(BaseModel):
    """A reference image that the main model uses without an adapter."""

    image_name: str = Field(description="The reference image.")


class RecallParameter(BaseModel):
    """The parameters to set; absent ones are unchanged."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    positive_prompt: str | None = Field(default=None, description="The positive prompt.")
    negative_prompt: str | None = Field(default=None, description="The negative prompt.")
    model: str | None = Field(default=None, description="The main model's name.")
    refiner_model: str | None = Field(default=None, description="The refiner's name.")
    vae_model: str | None = Field(default=None, description="The VAE's name.")
    scheduler: str | None = Field(default=None, description="The scheduler.")
    steps: int | None = Field(default=None, ge=1, description="Number of steps.")
    refiner_steps: int | None = Field(default=None, ge=0, description="Number of refiner steps.")
    cfg_scale: float | None = Field(default=None, description="CFG scale.")
    cfg_rescale_multiplier: float | None = Field(default=None, description="CFG rescale multiplier.")
    refiner_cfg_scale: float | None = Field(default=None, description="CFG scale of the refiner.")
    guidance: float | None = Field(default=None, description="Guidance of guidance-distilled models.")
    width: int | None = Field(default=None, ge=64, description="Width in pixels.")
    height: int | None = Field(default=None, ge=64, description="Height in pixels.")
    seed: int | None = Field(default=None, ge=0, description="The seed.")
    denoise_strength: float | None = Field(
        default=None, ge=0, le=1, description="Denoising strength for image to image."
    )
    refiner_denoise_start: float | None = Field(
        default=None, ge=0, le=1, description="Start of the refiner as a fraction of the steps."
    )
    clip_skip: int | None = Field(default=None, ge=0, description="CLIP layers to skip.")
    seamless_x: bool | None = Field(default=None, description="Whether the image tiles horizontally.")
    seamless_y: bool | None = Field(default=None, description="Whether the image tiles vertically.")
    refiner_positive_aesthetic_score: float | None = Field(
        default=None, description="Positive aesthetic score of the refiner."
    )
    refiner_negative_aesthetic_score: float | None = Field(
        default=None, description="Negative aesthetic score of the refiner."
    )
    loras: list[LoRARecallParameter] | None = Field(default=None, description="The LoRAs, replacing all others.")
    control_layers: list[ControlNetRecallParameter] | None = Field(
        default=None, description="The control layers, replacing all others."
    )
    ip_adapters: list[IPAdapterRecallParameter] | None = Field(
        default=None, description="Reference images with adapters."
    )
    reference_images: list[ReferenceImageRecallParameter] | None = Field(
        default=None, description="Reference images without adapters."
    )
