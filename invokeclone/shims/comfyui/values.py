"""What links between ComfyUI's nodes carry while a workflow is drawn: where things come out in our graph, and what is known of them.

A link of pictures or latents carries several of one size: each is a node of ours.
"""

from dataclasses import dataclass, replace
from typing import Self

from invokeclone.graph.builder import NodeOutput
from invokeclone.graph.recipes import (
    AppliedControl,
    AppliedLoRA,
    CannotBuild,
    ModelParts,
    PromptDetails,
    Recipe,
    ReferenceImage,
)
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.shims.comfyui.node_types import MAX_IMAGES, BuildContext


@dataclass(frozen=True)
class Model:
    """A main model: what denoises, its text encoders, its VAE, and how its family builds graphs."""

    parts: ModelParts
    config: ModelConfig
    recipe: Recipe
    loras: tuple[AppliedLoRA, ...] = ()
    """What is applied to the denoiser, or to the text encoders where these are meant, with the weights there."""
    bare: ModelParts | None = None
    """The parts without LoRAs; None: there are none."""
    references: tuple[ReferenceImage, ...] = ()
    """What IP-Adapters make prompts of."""

    @property
    def bare_parts(self) -> ModelParts:
        """The parts without LoRAs."""
        return self.bare or self.parts


@dataclass(frozen=True)
class Clip:
    """The text encoders of a main model."""

    model: Model
    skipped: int = 0
    """How many layers are skipped; the model's own parts skip none."""
    parts: ModelParts | None = None
    """The model's parts with layers skipped."""

    def with_skipped_layers(self, context: BuildContext, count: int) -> Self:
        """Return the text encoders without their last `count` layers, instead of what is skipped now."""
        model = self.model
        if not count:
            return type(self)(model)
        return type(self)(model, count, model.recipe.skip_clip_layers(context.builder, model.parts, count))

    @property
    def encoders(self) -> ModelParts:
        """The parts to encode with."""
        return self.parts or self.model.parts


@dataclass(frozen=True)
class ControlNetValue:
    """A ControlNet or a T2I-Adapter."""

    config: ModelConfig


@dataclass(frozen=True)
class IPAdapterValue:
    """An IP-Adapter."""

    config: ModelConfig


@dataclass(frozen=True)
class ImageEncoderValue:
    """A CLIP vision model."""

    config: ModelConfig


@dataclass(frozen=True)
class Vae:
    """A VAE, and how graphs of its architecture are built."""

    vae: NodeOutput
    recipe: Recipe


@dataclass(frozen=True)
class EncodedPrompt:
    """An encoded prompt."""

    conditioning: NodeOutput
    text: str
    """In the prompt language of its model."""
    clip: Clip
    masked: bool = False
    """Whether it holds in a part of the image only."""
    details: PromptDetails = PromptDetails()
    """What is stated beside it."""


@dataclass(frozen=True)
class EncodedPrompts:
    """Encoded prompts, put behind each other."""

    texts: tuple[EncodedPrompt, ...]
    controls: tuple[AppliedControl, ...] = ()
    """What steers the sampling with them."""

    def concat(self, other: Self) -> Self:
        """Return these prompts and then those of `other`; a control of both is there once."""
        new_controls = tuple(control for control in other.controls if control not in self.controls)
        return type(self)(self.texts + other.texts, self.controls + new_controls)

    @property
    def prompt(self) -> str:
        """All of the words."""
        return " ".join(text.text or text.details.second_text or "" for text in self.texts)


@dataclass(frozen=True)
class Mask:
    """An image in gray. ComfyUI's masks are white where something changes; ours are where it stays."""

    image: NodeOutput
    width: int
    height: int
    white_changes: bool = True

    def invert(self) -> Self:
        """Return the mask with the other meaning, which costs nothing."""
        return replace(self, white_changes=not self.white_changes)

    def to_image(self, context: BuildContext, role: str, *, white_changes: bool) -> NodeOutput:
        """Return the image whose white means what is asked for."""
        if self.white_changes is white_changes:
            return self.image
        return context.output(role, "tomask", "image", image=self.image, invert=True)


@dataclass(frozen=True)
class ImageBatch:
    """Pictures of one size."""

    nodes: tuple[NodeOutput, ...]
    width: int
    height: int
    metadata: tuple[NodeOutput | None, ...] = ()
    """What says how each was made."""

    @property
    def images_with_metadata(self) -> tuple[tuple[NodeOutput, NodeOutput | None], ...]:
        """The pictures, each with its metadata."""
        metadata = self.metadata or (None,) * len(self.nodes)
        return tuple(zip(self.nodes, metadata, strict=True))


@dataclass(frozen=True)
class Latents:
    """Latents of one size (in pixels; None: the model's own). Without nodes they are empty, `count` of them."""

    nodes: tuple[NodeOutput, ...] = ()
    """Outputs of nodes of ours that also have the outputs `width` and `height`."""
    count: int = 1
    width: int | None = None
    height: int | None = None
    vae: Vae | None = None
    """What they were encoded with."""
    image: NodeOutput | None = None
    """The picture that they are of, for inpainting models."""
    mask: Mask | None = None
    """Where something changes."""
    metadata: tuple[NodeOutput | None, ...] = ()

    def require_nodes(self, operation: str) -> tuple[NodeOutput, ...]:
        """Return the nodes; raises CannotBuild when the latents are empty."""
        if not self.nodes:
            raise CannotBuild(f"{operation}: the latents are empty, a sampler or an encoder must come before")
        return self.nodes

    def size(self, operation: str) -> tuple[int, int]:
        """Return the size in pixels; raises CannotBuild while only the model knows it."""
        if self.width is None or self.height is None:
            raise CannotBuild(f"{operation}: the size of the latents is left open")
        return self.width, self.height


def check_image_count(count: int) -> int:
    """Return how many pictures a link will carry; raises CannotBuild when they are too many."""
    if count > MAX_IMAGES:
        raise CannotBuild(f"{count} pictures at once are too many: at most {MAX_IMAGES}")
    return count
