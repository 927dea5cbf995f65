"""What callers state of images, before anything is resolved."""

from pydantic import BaseModel, ConfigDict, Field

from invokeclone.components.control.fields import CLIP_VISION_MODELS
from invokeclone.graph.prompts import Prompt
from invokeclone.graph.recipes import ControlMode, ControlResize, HiresFix, InitImage, InpaintMask, ReferenceMethod
from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.queue.generation.limits import MAX_CONTROLS, MAX_LORAS, MAX_REFERENCES, SEEDS


class LoRAChoice(BaseModel):
    """A LoRA and how strongly it is applied."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="Key or name of a LoRA.")
    weight: float = Field(default=1.0, ge=-10, le=10, description="How strongly it is applied.")
    text_weight: float | None = Field(
        default=None,
        ge=-10,
        le=10,
        description="How strongly it is applied to the text encoders; the same if left out.",
    )


class ControlChoice(BaseModel):
    """A ControlNet or a T2I-Adapter, and the image that it follows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="Key or name of a ControlNet or a T2I-Adapter.")
    image: str = Field(description="Name of the image that it follows, as its model expects it: edges, depth, poses …")
    weight: float = Field(default=1.0, ge=-1, le=2, description="How strongly it is applied; T2I-Adapters from 0.")
    begin: float = Field(default=0.0, ge=0, le=1, description="When it starts, as a fraction of the steps.")
    end: float = Field(default=1.0, ge=0, le=1, description="When it stops, as a fraction of the steps.")
    mode: ControlMode = Field(
        default="balanced", description="Whether the prompt or the image matters more; ControlNets only."
    )
    resize: ControlResize = Field(default="just_resize", description="How the image is made to fit.")


class ReferenceImageChoice(BaseModel):
    """An image that is a prompt, by an IP-Adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = Field(description="Name of the image.")
    model: str | None = Field(
        default=None, description="Key or name of an IP-Adapter; the first that fits the model if left out."
    )
    weight: float = Field(default=1.0, ge=-1, le=2, description="How strongly it is applied.")
    begin: float = Field(default=0.0, ge=0, le=1, description="When it starts, as a fraction of the steps.")
    end: float = Field(default=1.0, ge=0, le=1, description="When it stops, as a fraction of the steps.")
    method: ReferenceMethod = Field(default="full", description="What is taken from the image.")
    mask: str | None = Field(
        default=None, description="Name of a mask image, white where the prompt holds; everywhere if left out."
    )
    image_encoder: CLIP_VISION_MODELS | None = Field(
        default=None,
        description="The CLIP vision model of adapters whose record does not name one; by the adapter's name if left out.",
    )


class RefinerChoice(BaseModel):
    """A refiner, which denoises the last part. What is left out is of its record, else as in the run that it ends."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="Key or name of a refiner.")
    start: float = Field(default=0.8, ge=0, le=1, description="When it takes over, as a fraction of the schedule.")
    steps: int | None = Field(default=None, ge=1, le=1000, description="Steps of its whole schedule.")
    cfg_scale: float | None = Field(default=None, ge=1, le=1000, description="Its guidance scale.")
    scheduler: SCHEDULER_NAME_VALUES | None = Field(default=None, description="Its scheduler's name.")
    positive_aesthetic_score: float = Field(default=6.0, ge=1, le=10, description="How beautiful the image is to be.")
    negative_aesthetic_score: float = Field(default=2.5, ge=1, le=10, description="How beautiful it is not to be.")


class GenerationRequest(BaseModel):
    """What a caller states of images. What is None is resolved: from the model's default settings, else from its base's."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    prompt: str | Prompt = Field(
        description="What the image shows: text in the model's own prompt language, or weighted segments."
    )
    negative_prompt: str | Prompt = Field(default="", description="What the image does not show.")
    model: str | None = Field(default=None, description="Key or name of a main model.")
    count: int = Field(default=1, ge=1, le=1000, description="Number of images, each with a seed of its own.")
    seed: int | None = Field(
        default=None, ge=0, lt=SEEDS, description="The first one's seed; each next one's is one more."
    )
    width: int | None = Field(default=None, gt=0, description="Pixels, rounded to the model's grid.")
    height: int | None = Field(default=None, gt=0, description="Pixels, rounded to the model's grid.")
    steps: int | None = Field(default=None, ge=1, le=1000, description="Denoising steps.")
    cfg_scale: float | None = Field(default=None, ge=1, le=1000, description="Guidance scale.")
    scheduler: SCHEDULER_NAME_VALUES | None = Field(
        default=None, description="The scheduler's name; a model that does not have it uses its default."
    )
    clip_skip: int = Field(default=0, ge=0, le=24, description="Number of the text encoder's last layers to skip.")
    vae: str | None = Field(default=None, description="Key or name of a VAE to use instead of the model's own.")
    loras: list[LoRAChoice] = Field(
        default=[],
        max_length=MAX_LORAS,
        description="LoRAs to apply, in this order; the weights of one that is there twice are added up.",
    )
    controls: list[ControlChoice] = Field(
        default=[], max_length=MAX_CONTROLS, description="ControlNets and T2I-Adapters to follow; they add up."
    )
    reference_images: list[ReferenceImageChoice] = Field(
        default=[], max_length=MAX_REFERENCES, description="Images that are prompts, by IP-Adapters."
    )
    refiner: RefinerChoice | None = Field(
        default=None, description="A refiner for the last part; with `hires_fix` of both runs."
    )
    seamless: bool = Field(default=False, description="Whether opposite edges fit each other.")
    init_image: InitImage | None = Field(default=None, description="The image to begin with.")
    inpaint_mask: InpaintMask | None = Field(default=None, description="Which part of the initial image changes.")
    hires_fix: HiresFix | None = Field(default=None, description="A second run over the enlarged result.")
    variation_seed: int | None = Field(default=None, ge=0, lt=SEEDS, description="Seed of the variation.")
    variation_strength: float = Field(default=0.0, ge=0, le=1, description="Share of the variation's noise.")
    board_id: str | None = Field(default=None, description="The board to put the images on.")
