"""What recipes are given: the settings of an image, with nothing left open, and what is applied to its model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from invokeclone.graph.builder import NodeOutput
from invokeclone.graph.prompts import Prompt
from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.graph.vocabulary.taxonomy import ModelType

SEED = "seed"
"""The id of the integer node that holds the seed; batches put other seeds there."""
VARIATION = "variation_seed"
"""The id of the integer node that holds the seed of the variation, where there is one."""
PROMPT = "positive_prompt"
"""The id of the string node that holds the prompt in the family's prompt language."""
OUTPUT = "canvas_output"
"""The id of the node whose image is the result."""
PASTED = "part"
"""The id of the node that makes the pasted image, where the result is a larger image."""

Fill = Literal["original", "noise"]
Share = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(gt=0)]
ControlMode = Literal["balanced", "more_prompt", "more_control", "unbalanced"]
ControlResize = Literal["just_resize", "crop_resize", "fill_resize", "just_resize_simple"]
ReferenceMethod = Literal["full", "style", "composition", "style_strong", "style_precise"]
"""What a reference image is a prompt for."""
Model = Mapping[str, Any]
"""key, hash, name, base and type of a model record."""


@dataclass(frozen=True)
class InitImage:
    """The image that a run begins with."""

    image: str
    """Its name among the images."""
    strength: Share = 0.75
    """Share of the noise that it gets: 1 leaves nothing of it."""
    resize: bool = False
    """Whether it must be brought to the size of the result first."""


@dataclass(frozen=True)
class InpaintMask:
    """Which part of the initial image changes."""

    mask: str
    """The name of a mask image of the initial image's size: white stays, black changes."""
    feather: Annotated[int, Field(ge=0, le=256)] = 0
    """Width of the border that fades from old to new, in pixels."""
    paste: bool = True
    """Whether the pixels that stay are put back exactly."""
    fill: Fill = "original"
    """What the changing part begins with."""


@dataclass(frozen=True)
class HiresFix:
    """A second run over the enlarged result of the first."""

    width: Pixels
    height: Pixels
    steps: Annotated[int, Field(ge=1, le=1000)]
    strength: Share = 0.7
    scheduler: SCHEDULER_NAME_VALUES | None = None
    """None: that of the first run."""
    in_pixels: bool = False
    """Whether pixels are enlarged, and not latents."""
    resample: Literal["lanczos", "nearest"] = "lanczos"
    """How pixels are enlarged."""


@dataclass(frozen=True)
class PasteTarget:
    """Where in a larger image the result is put; the larger image is the result then. Sizes in pixels."""

    image: str
    """The larger image's name among the images."""
    mask: str
    """The name of a mask of the pasted size: white keeps the larger image."""
    left: int
    top: int
    width: Pixels
    height: Pixels


@dataclass(frozen=True)
class Variation:
    """A second seed whose noise is blended in."""

    seed: int | NodeOutput
    strength: float
    """0..1."""


@dataclass(frozen=True)
class AppliedLoRA:
    """A LoRA and how strongly it is applied."""

    model: Model
    weight: float = 1.0
    """On the denoiser, and on the text encoders unless those have their own."""
    text_weight: float | None = None
    """On the text encoders; None: as on the denoiser."""

    @property
    def encoder_weight(self) -> float:
        """How strongly it is applied to the text encoders."""
        return self.weight if self.text_weight is None else self.text_weight


def merge_loras(loras: Iterable[AppliedLoRA]) -> list[AppliedLoRA]:
    """Return each LoRA once: the weights of one that is applied several times are added up."""
    merged: dict[str, AppliedLoRA] = {}
    for lora in loras:
        first = merged.get(lora.model["key"])
        if first is None:
            merged[lora.model["key"]] = lora
            continue
        is_same = first.text_weight is None and lora.text_weight is None
        text_weight = None if is_same else first.encoder_weight + lora.encoder_weight
        merged[lora.model["key"]] = AppliedLoRA(lora.model, first.weight + lora.weight, text_weight)
    return list(merged.values())


@dataclass(frozen=True)
class Preprocessor:
    """A node that makes a control image of an image: its type and the inputs beside the image."""

    node: str
    inputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AppliedControl:
    """A control model (its type says which kind) and the image that it follows."""

    model: Model
    image: str | NodeOutput
    """Its name among the images, or where it comes out."""
    weight: float = 1.0
    begin: Share = 0.0
    """When it starts, as a fraction of the steps."""
    end: Share = 1.0
    mode: ControlMode = "balanced"
    """Whether the prompt or the image matters more; ControlNets only."""
    resize: ControlResize = "just_resize"
    """How the image is made to fit."""
    preprocessor: Preprocessor | None = None
    """What is done to the image first."""

    def fields(self) -> dict[str, Any]:
        """Return it by the names that its node's inputs and an image's metadata have."""
        model_fields: dict[str, Any]
        if self.model["type"] == ModelType.T2IAdapter:
            model_fields = {"t2i_adapter_model": dict(self.model), "weight": self.weight}
        else:
            model_fields = {"control_model": dict(self.model), "control_weight": self.weight, "control_mode": self.mode}
        return {
            **model_fields,
            "image": _image_field(self.image),
            "begin_step_percent": self.begin,
            "end_step_percent": self.end,
            "resize_mode": self.resize,
        }


@dataclass(frozen=True)
class ReferenceImage:
    """An image that is a prompt, by an IP-Adapter."""

    model: Model
    image: str | NodeOutput
    """Its name among the images, or where it comes out."""
    image_encoder: str = "ViT-H"
    """What the nodes call the CLIP vision model, for adapters that do not name theirs."""
    weight: float = 1.0
    begin: Share = 0.0
    """When it starts, as a fraction of the steps."""
    end: Share = 1.0
    method: ReferenceMethod = "full"
    mask: str | NodeOutput | None = None
    """A mask image, white where it holds, by its name or where it comes out; None: everywhere."""

    def fields(self) -> dict[str, Any]:
        """Return it, but for its mask, by the names that its node's inputs and an image's metadata have."""
        return {
            "image": _image_field(self.image),
            "ip_adapter_model": dict(self.model),
            "clip_vision_model": self.image_encoder,
            "method": self.method,
            "weight": self.weight,
            "begin_step_percent": self.begin,
            "end_step_percent": self.end,
        }


def _image_field(image: str | NodeOutput) -> Any:
    return {"image_name": image} if isinstance(image, str) else image


@dataclass(frozen=True)
class Refiner:
    """A second model that denoises the last part of each run. What is None is as in the run that it ends."""

    model: Model
    start: Share = 0.8
    """Share of the schedule at which it takes over."""
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Of the whole schedule."""
    guidance: float | None = None
    scheduler: str | None = None
    positive_score: float = 6.0
    """How beautiful the image is to be, about 1 to 10."""
    negative_score: float = 2.5


@dataclass(frozen=True)
class ImageSettings:
    """Everything about an image before it is made; nothing is left open. Sizes in pixels."""

    model: Model
    prompt: Prompt
    seed: int
    width: int
    height: int
    steps: int
    guidance: float
    scheduler: str
    negative_prompt: Prompt = Prompt(native="")
    cfg_rescale: float = 0.0
    clip_skip: int = 0
    vae: Model | None = None
    seamless: bool = False
    loras: Sequence[AppliedLoRA] = ()
    controls: Sequence[AppliedControl] = ()
    references: Sequence[ReferenceImage] = ()
    refiner: Refiner | None = None
    init_image: InitImage | None = None
    inpaint_mask: InpaintMask | None = None
    hires_fix: HiresFix | None = None
    variation: Variation | None = None
    paste_target: PasteTarget | None = None
    board_id: str | None = None


class CannotBuild(ValueError):
    """A family has no way to make what is asked for; the text says what."""
