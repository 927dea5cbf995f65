"""What recipes' blocks pass to each other: parts of loaded models, what is stated beside a prompt, denoise runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from invokeclone.graph.builder import NodeOutput
from invokeclone.graph.recipes.settings import AppliedControl, ReferenceImage, Variation


@dataclass(frozen=True)
class ModelParts:
    """Where the parts of a loaded model come out in a graph."""

    denoiser: NodeOutput
    text_encoders: Mapping[str, NodeOutput]
    """By the names that the family's own nodes have for them."""
    vae: NodeOutput


@dataclass(frozen=True)
class PromptDetails:
    """What some models are told beside a prompt. Sizes in pixels; None: as the model was trained."""

    second_text: str | None = None
    """For the second text encoder; None: the prompt."""
    original_size: tuple[int, int] | None = None
    """Width and height of the image that the model is to imagine."""
    crop: tuple[int, int] = (0, 0)
    """How much of it is cut off at the left and at the top."""
    target_size: tuple[int, int] | None = None
    """Width and height of what is left of it."""
    aesthetic_score: float | None = None
    """How beautiful the image is to be, about 1 to 10."""


@dataclass(frozen=True)
class DenoiseRun:
    """One denoise run. Sizes in pixels."""

    positive: NodeOutput
    negative: NodeOutput
    seed: int | NodeOutput
    width: int | NodeOutput
    height: int | NodeOutput
    steps: int
    guidance: float
    scheduler: str
    cfg_rescale: float = 0.0
    start: float = 0.0
    """Share of the schedule that is left out at the beginning."""
    end: float = 1.0
    latents: NodeOutput | None = None
    mask: NodeOutput | None = None
    add_noise: bool = True
    """Whether latents get noise; if not, they have theirs."""
    variation: Variation | None = None
    controls: Sequence[AppliedControl] = ()
    """Empty where the family's capabilities have no control."""
    references: Sequence[ReferenceImage] = ()
    """Empty where the family's capabilities have no reference images."""
