"""Schemas of the capabilities and controls of external models, which run at a third-party provider."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PROVIDERS = ("alibabacloud", "gemini", "openai", "seedream")
"""The supported providers."""

Mode = Literal["txt2img", "img2img", "inpaint"]


class ExternalImageSize(BaseModel):
    """A size in pixels."""

    model_config = ConfigDict(extra="forbid")

    width: int = Field(gt=0)
    height: int = Field(gt=0)


class ExternalResolutionPreset(BaseModel):
    """A named size offered by the provider."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field(min_length=1)
    aspect_ratio: str = Field(min_length=1)
    image_size: str = Field(min_length=1)
    width: int = Field(gt=0)
    height: int = Field(gt=0)


class ExternalModelCapabilities(BaseModel):
    """The capabilities of an external model."""

    model_config = ConfigDict(extra="forbid")

    modes: list[Mode] = Field(default=["txt2img"])
    supports_reference_images: bool = False
    supports_negative_prompt: bool = True
    supports_seed: bool = False
    supports_guidance: bool = False
    supports_steps: bool = False
    max_images_per_request: int | None = Field(default=None, gt=0)
    max_image_size: ExternalImageSize | None = None
    allowed_aspect_ratios: list[str] | None = None
    aspect_ratio_sizes: dict[str, ExternalImageSize] | None = None
    resolution_presets: list[ExternalResolutionPreset] | None = None
    max_reference_images: int | None = Field(default=None, gt=0)
    mask_format: Literal["alpha", "binary", "none"] = "none"
    input_image_required_for: list[Mode] | None = None


class ExternalModelPanelControl(BaseModel):
    """A control of the user interface for the model."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["reference_images", "dimensions", "seed"]
    slider_min: float | None = None
    slider_max: float | None = None
    number_input_min: float | None = None
    number_input_max: float | None = None
    fine_step: float | None = None
    coarse_step: float | None = None
    marks: list[float] | None = None


class ExternalModelPanelSchema(BaseModel):
    """The controls of the user interface, by panel."""

    model_config = ConfigDict(extra="forbid")

    prompts: list[ExternalModelPanelControl] = Field(default_factory=list)
    image: list[ExternalModelPanelControl] = Field(default_factory=list)
    generation: list[ExternalModelPanelControl] = Field(default_factory=list)
