"""Values that recipes' blocks pass to each other: model parts, prompt details, denoise runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from invokeclone.graph.builder import NodeOutput
from invokeclone.graph.recipes.settings import AppliedControl, ReferenceImage, StyleImage, Variation
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType


@dataclass(frozen=True)
class PartKind:
    """A kind of separate model that can replace a part of main models."""

    type: ModelType
    variant: str | None = None
    """Variant of the record; None: any."""
    base: BaseModelType | None = None
    """Base of VAEs; None: the main model's."""


@dataclass(frozen=True)
class StyleModelKind:
    """A kind of model that appends images to prompts, and of the image encoder that it needs."""

    type: ModelType
    image_encoder: ModelType


@dataclass(frozen=True)
class ModelParts:
    """The outputs of a graph that are the parts of a loaded model."""

    denoiser: NodeOutput
    text_encoders: Mapping[str, NodeOutput]
    """By the names that the family's nodes use."""
    vae: NodeOutput


@dataclass(frozen=True)
class PromptDetails:
    """Conditioning beside the prompt, for models that take it. Sizes in pixels; None: the model's default."""

    second_text: str | None = None
    """Prompt for the second text encoder; None: the same prompt."""
    original_size: tuple[int, int] | None = None
    """Width and height of the imagined original image."""
    crop: tuple[int, int] = (0, 0)
    """Pixels cropped from the original image at the left and at the top."""
    target_size: tuple[int, int] | None = None
    """Width and height after cropping."""
    aesthetic_score: float | None = None
    """Aesthetic score, about 1 to 10."""


@dataclass(frozen=True)
class DenoiseRun:
    """One denoise run. Sizes in pixels."""

    positive: NodeOutput
    negative: NodeOutput | None
    """None if the recipe does not use negative prompts."""
    seed: int | NodeOutput
    width: int | NodeOutput
    height: int | NodeOutput
    steps: int
    guidance: float
    scheduler: str
    cfg_rescale: float = 0.0
    cfg_scale: float = 1.0
    """Guidance by the negative prompt, for models whose `guidance` is an input of the network."""
    start: float = 0.0
    """Fraction of the schedule that is skipped at the beginning."""
    end: float = 1.0
    shift: float | None = None
    """Factor by which noise levels are shifted; None: the family's. Only if the recipe has `sets_shift`."""
    latents: NodeOutput | None = None
    mask: NodeOutput | None = None
    add_noise: bool = True
    """Whether noise is added to the latents; False if they are noisy already."""
    variation: Variation | None = None
    controls: Sequence[AppliedControl] = ()
    """Empty if the family's capabilities lack `control`."""
    references: Sequence[ReferenceImage] = ()
    """Empty if the family's capabilities lack `reference_images`."""
    styles: Sequence[StyleImage] = ()
    """Empty if the family's capabilities lack `style_images`."""
