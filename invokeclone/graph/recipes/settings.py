"""Input of recipes: the complete settings of an image, and the adapters applied to its model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from invokeclone.graph.builder import NodeOutput
from invokeclone.graph.prompts import Prompt
from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.graph.vocabulary.taxonomy import ModelType

SEED = "seed"
"""Id of the integer node that holds the seed, which batches vary."""
VARIATION = "variation_seed"
"""Id of the integer node that holds the seed of the variation, if there is one."""
PROMPT = "positive_prompt"
"""Id of the string node that holds the prompt in the family's prompt language."""
OUTPUT = "canvas_output"
"""Id of the node whose image is the result."""
PASTED = "part"
"""Id of the node that makes the pasted image, if the result is a larger image."""

Fill = Literal["original", "noise"]
Share = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(gt=0)]
ControlMode = Literal["balanced", "more_prompt", "more_control", "unbalanced"]
ControlResize = Literal["just_resize", "crop_resize", "fill_resize", "just_resize_simple"]
ControlKind = Literal[
    "canny",
    "tile",
    "depth",
    "blur",
    "pose",
    "gray",
    "low_quality",
    "soft_edge",
    "normal",
    "segmentation",
    "inpaint",
]
"""What a control image shows, for union ControlNets, which take several kinds."""
ReferenceMethod = Literal["full", "style", "composition", "style_strong", "style_precise"]
"""What is taken from a reference image."""
Model = Mapping[str, Any]
"""Key, hash, name, base and type of a model record."""


@dataclass(frozen=True)
class InitImage:
    """The initial image of a run."""

    image: str
    """Image name."""
    strength: Share = 0.75
    """Denoising strength: 1 leaves nothing of the image."""
    resize: bool = False
    """Whether the image must first be resized to the size of the result."""


@dataclass(frozen=True)
class InpaintMask:
    """The part of the initial image to change."""

    mask: str
    """Name of a mask image of the initial image's size: white is kept, black is changed."""
    feather: Annotated[int, Field(ge=0, le=256)] = 0
    """Width in pixels of the transition between kept and changed parts."""
    paste: bool = True
    """Whether kept pixels are restored exactly after decoding."""
    fill: Fill = "original"
    """Initial content of the changed part."""


@dataclass(frozen=True)
class HiresFix:
    """A second run over the enlarged result of the first run."""

    width: Pixels
    height: Pixels
    steps: Annotated[int, Field(ge=1, le=1000)]
    strength: Share = 0.7
    scheduler: SCHEDULER_NAME_VALUES | None = None
    """None: the scheduler of the first run."""
    in_pixels: bool = False
    """Whether the decoded image is enlarged instead of the latents."""
    resample: Literal["lanczos", "nearest"] = "lanczos"
    """Resampling method if `in_pixels` is set."""
    interpolation: Literal["bilinear", "bicubic", "nearest", "nearest-exact"] = "bilinear"
    """Interpolation of the latents if `in_pixels` is not set."""
    antialias: bool = False
    """Whether that interpolation is antialiased; `bilinear` and `bicubic` only."""


@dataclass(frozen=True)
class PasteTarget:
    """A larger image that the result is pasted into, which becomes the result. Sizes in pixels."""

    image: str
    """Name of the larger image."""
    mask: str
    """Name of a mask image of the pasted size: white keeps the larger image."""
    left: int
    top: int
    width: Pixels
    height: Pixels


@dataclass(frozen=True)
class Variation:
    """A second seed whose noise is blended with that of the first."""

    seed: int | NodeOutput
    strength: float
    """Share of the second seed's noise, 0 to 1."""


@dataclass(frozen=True)
class AppliedLoRA:
    """A LoRA and its weights."""

    model: Model
    weight: float = 1.0
    """Weight for the denoiser, and for the text encoders unless `text_weight` is set."""
    text_weight: float | None = None
    """Weight for the text encoders; None: the same as for the denoiser."""

    @property
    def encoder_weight(self) -> float:
        """The weight for the text encoders."""
        return self.weight if self.text_weight is None else self.text_weight


def merge_loras(loras: Iterable[AppliedLoRA]) -> list[AppliedLoRA]:
    """Return each LoRA once; the weights of a LoRA that occurs several times are added."""
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
    """A node that makes a control image from an image: its type, and its inputs other than the image."""

    node: str
    inputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AppliedControl:
    """A ControlNet, T2I-Adapter or control LoRA (by the model's type) and its control image."""

    model: Model
    image: str | NodeOutput
    """Image name, or the output that provides the image."""
    weight: float = 1.0
    begin: Share = 0.0
    """Start, as a fraction of the steps."""
    end: Share = 1.0
    mode: ControlMode = "balanced"
    """Balance between prompt and control image; ControlNets only."""
    resize: ControlResize = "just_resize"
    """How the control image is resized."""
    preprocessor: Preprocessor | None = None
    """Applied to the image first."""
    kind: ControlKind | None = None
    """What the image shows, for union ControlNets; None: not stated."""

    def fields(self) -> dict[str, Any]:
        """Return the values under the names of the node's inputs, which image metadata uses too."""
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
    """A reference image, applied by an IP-Adapter or read by the model itself."""

    model: Model | None
    """The IP-Adapter; None: the model reads the image, which has no other settings."""
    image: str | NodeOutput
    """Image name, or the output that provides the image."""
    image_encoder: str = "ViT-H"
    """The nodes' name of the CLIP vision model, for adapters that do not specify one."""
    weight: float = 1.0
    begin: Share = 0.0
    """Start, as a fraction of the steps."""
    end: Share = 1.0
    method: ReferenceMethod = "full"
    mask: str | NodeOutput | None = None
    """Mask image, white where the reference applies: its name or an output; None: the whole image."""

    def fields(self) -> dict[str, Any]:
        """Return the values except `mask` under the names of the IP-Adapter's node, which image metadata uses too."""
        return {
            "image": _image_field(self.image),
            "ip_adapter_model": dict(self.model or {}),
            "clip_vision_model": self.image_encoder,
            "method": self.method,
            "weight": self.weight,
            "begin_step_percent": self.begin,
            "end_step_percent": self.end,
        }


@dataclass(frozen=True)
class StyleImage:
    """An image that a style model, such as FLUX Redux, appends to the prompt."""

    model: Model
    """The style model."""
    image: str | NodeOutput
    """Image name, or the output that provides the image."""
    strength: Share = 1.0
    """Factor of the image's part of the prompt."""
    region: NodeOutput | None = None
    """Mask tensor of the region that the image applies to; None: the whole image."""


def _image_field(image: str | NodeOutput) -> Any:
    return {"image_name": image} if isinstance(image, str) else image


@dataclass(frozen=True)
class Refiner:
    """A second model that denoises the last part of each run. None: the value of that run."""

    model: Model
    start: Share = 0.8
    """Fraction of the schedule at which the refiner takes over."""
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Number of steps of the whole schedule."""
    guidance: float | None = None
    scheduler: str | None = None
    positive_score: float = 6.0
    """Aesthetic score of the positive prompt, about 1 to 10."""
    negative_score: float = 2.5


@dataclass(frozen=True)
class ImageSettings:
    """The complete settings of an image. Sizes in pixels."""

    model: Model
    prompt: Prompt
    seed: int
    width: int
    height: int
    steps: int
    guidance: float
    scheduler: str
    variant: str | None = None
    """Variant of the model's record."""
    negative_prompt: Prompt = Prompt(native="")
    cfg_scale: float = 1.0
    """Guidance by the negative prompt, for models whose `guidance` is an input of the network; 1: none."""
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
    second_pass: "ImageSettings | None" = None
    """Model, prompts and their settings of the second run of `hires_fix`; None: those of the first run."""
    variation: Variation | None = None
    paste_target: PasteTarget | None = None
    board_id: str | None = None


class CannotBuild(ValueError):
    """The family's recipe does not support a setting; the message says which."""
