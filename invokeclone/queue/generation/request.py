"""Generation requests, before missing settings are resolved."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from invokeclone.components.control.fields import CLIP_VISION_MODELS
from invokeclone.graph.prompts import Prompt
from invokeclone.graph.recipes import (
    ControlKind,
    ControlMode,
    ControlResize,
    HiresFix,
    InitImage,
    InpaintMask,
    ReferenceMethod,
)
from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.queue.generation.limits import MAX_CONTROLS, MAX_LORAS, MAX_REFERENCES, SEEDS


class LoRAChoice(BaseModel):
    """A LoRA and its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="Key or name of a LoRA.")
    weight: float = Field(default=1.0, ge=-10, le=10, description="Weight.")
    text_weight: float | None = Field(
        default=None,
        ge=-10,
        le=10,
        description="Weight for the text encoders; `weight` if omitted.",
    )


class ControlChoice(BaseModel):
    """A ControlNet, T2I-Adapter or control LoRA, and its control image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        description="Key or name of a ControlNet, T2I-Adapter or control LoRA; or a type, such as `canny` or `depth`."
    )
    image: str = Field(description="Name of the control image, preprocessed for the model: edges, depth, poses …")
    weight: float = Field(default=1.0, ge=-1, le=2, description="Weight; at least 0 for T2I-Adapters.")
    begin: float = Field(default=0.0, ge=0, le=1, description="Start, as a fraction of the steps.")
    end: float = Field(default=1.0, ge=0, le=1, description="End, as a fraction of the steps.")
    mode: ControlMode = Field(
        default="balanced", description="Balance between prompt and control image; ControlNets only."
    )
    kind: ControlKind | None = Field(
        default=None, description="What the image shows, for union ControlNets, which take several kinds."
    )
    resize: ControlResize = Field(default="just_resize", description="How the control image is resized.")


class ReferenceImageChoice(BaseModel):
    """A reference image, applied by an IP-Adapter, or read by the model itself (Kontext), which needs only `image`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = Field(description="Name of the image.")
    model: str | None = Field(
        default=None, description="Key or name of an IP-Adapter; the first one for the model's base if omitted."
    )
    weight: float = Field(default=1.0, ge=-1, le=2, description="Weight.")
    begin: float = Field(default=0.0, ge=0, le=1, description="Start, as a fraction of the steps.")
    end: float = Field(default=1.0, ge=0, le=1, description="End, as a fraction of the steps.")
    method: ReferenceMethod = Field(default="full", description="What to take from the image.")
    mask: str | None = Field(
        default=None, description="Name of a mask image, white where the reference applies; the whole image if omitted."
    )
    image_encoder: CLIP_VISION_MODELS | None = Field(
        default=None,
        description="CLIP vision model for adapters whose record has none; by the adapter's name if omitted.",
    )


class RefinerChoice(BaseModel):
    """A refiner for the last part of each run. Omitted values default to its record's, else to those of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="Key or name of a refiner.")
    start: float = Field(default=0.8, ge=0, le=1, description="Start, as a fraction of the schedule.")
    steps: int | None = Field(default=None, ge=1, le=1000, description="Number of steps of the whole schedule.")
    cfg_scale: float | None = Field(default=None, ge=1, le=1000, description="Guidance scale.")
    scheduler: SCHEDULER_NAME_VALUES | None = Field(default=None, description="Name of the scheduler.")
    positive_aesthetic_score: float = Field(default=6.0, ge=1, le=10, description="Aesthetic score of the prompt.")
    negative_aesthetic_score: float = Field(
        default=2.5, ge=1, le=10, description="Aesthetic score of the negative prompt."
    )


class SecondPassChoice(BaseModel):
    """What the second run of `hires_fix` has other than the first. Omitted values are those of the first run."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    model: str | None = Field(default=None, description="Key or name of a main model.")
    prompt: str | Prompt | None = Field(default=None, description="Prompt.")
    negative_prompt: str | Prompt | None = Field(default=None, description="Negative prompt.")
    loras: list[LoRAChoice] | None = Field(
        default=None, max_length=MAX_LORAS, description="LoRAs; those of the first run if omitted and for this model."
    )


class GenerationRequest(BaseModel):
    """Images to generate. Values that are None default to the model's default settings, else to those of its base."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    prompt: str | Prompt = Field(description="Prompt: text in the model's own prompt language, or weighted segments.")
    negative_prompt: str | Prompt = Field(default="", description="Negative prompt.")
    model: str | None = Field(
        default=None, description="Key or name of a main model; the first that can generate images if omitted."
    )
    count: int = Field(default=1, ge=1, le=1000, description="Number of images, each with its own seed.")
    seed: int | None = Field(
        default=None,
        ge=0,
        lt=SEEDS,
        description="Seed of the first image, incremented by 1 for each further image; random if omitted.",
    )
    width: int | None = Field(default=None, gt=0, description="In pixels; rounded to the model's grid.")
    height: int | None = Field(default=None, gt=0, description="In pixels; rounded to the model's grid.")
    steps: int | None = Field(default=None, ge=1, le=1000, description="Number of denoising steps.")
    cfg_scale: float | None = Field(default=None, ge=1, le=1000, description="Guidance scale.")
    true_cfg_scale: float | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Guidance by the negative prompt, for models whose guidance is `distilled`; 1 or omitted: none.",
    )
    scheduler: SCHEDULER_NAME_VALUES | None = Field(
        default=None, description="Name of the scheduler; the model's default if the model does not support it."
    )
    clip_skip: int = Field(default=0, ge=0, le=24, description="Number of last text encoder layers to skip.")
    vae: str | None = Field(default=None, description="Key or name of a VAE to use instead of the model's.")
    loras: list[LoRAChoice] = Field(
        default=[],
        max_length=MAX_LORAS,
        description="LoRAs to apply, in this order; the weights of a LoRA that occurs twice are added.",
    )
    controls: list[ControlChoice] = Field(
        default=[], max_length=MAX_CONTROLS, description="ControlNets, T2I-Adapters and control LoRAs to apply."
    )
    reference_images: list[ReferenceImageChoice] = Field(
        default=[],
        max_length=MAX_REFERENCES,
        description="Reference images, applied by IP-Adapters or read by the model.",
    )
    refiner: RefinerChoice | None = Field(default=None, description="Refiner for the last part of each run.")
    seamless: bool = Field(default=False, description="Whether to make the image tileable: opposite edges match.")
    init_image: InitImage | None = Field(default=None, description="Initial image.")
    inpaint_mask: InpaintMask | None = Field(default=None, description="The part of the initial image to change.")
    hires_fix: HiresFix | None = Field(default=None, description="Second run over the enlarged result.")
    second_pass: SecondPassChoice | None = Field(
        default=None, description="Model, prompts and LoRAs of the second run of `hires_fix`, where they differ."
    )
    variation_seed: int | None = Field(default=None, ge=0, lt=SEEDS, description="Seed of the variation.")
    variation_strength: float = Field(default=0.0, ge=0, le=1, description="Share of the variation's noise, 0 to 1.")
    board_id: str | None = Field(default=None, description="Id of the board to add the images to.")

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield what each prompt is, for messages, and its text."""
        yield "the prompt", _text_of(self.prompt)
        yield "the negative prompt", _text_of(self.negative_prompt)
        if self.second_pass is not None:
            yield "the prompt of the second pass", _text_of(self.second_pass.prompt or "")
            yield "the negative prompt of the second pass", _text_of(self.second_pass.negative_prompt or "")


def _text_of(prompt: str | Prompt) -> str:
    return prompt if isinstance(prompt, str) else prompt.raw_text
