"""Values of links between ComfyUI nodes while a graph is built: outputs of graph nodes, and what is known of them.

A link of images or latents has several of one size, each from a node of the graph.
"""

from dataclasses import dataclass, replace
from typing import Self

from invokeclone.graph.builder import NodeOutput
from invokeclone.graph.recipes import (
    AppliedControl,
    AppliedLoRA,
    CannotBuild,
    ControlKind,
    ModelParts,
    PromptDetails,
    Recipe,
    ReferenceImage,
    StyleImage,
)
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.queue.generation import architecture_of, share_latents
from invokeclone.shims.comfyui.node_types import MAX_IMAGES, BuildContext


@dataclass(frozen=True)
class Model:
    """A main model: denoiser, text encoders, VAE, and the recipe of its family."""

    parts: ModelParts
    config: ModelConfig
    recipe: Recipe
    loras: tuple[AppliedLoRA, ...] = ()
    """The LoRAs applied to the denoiser (in the model of a Clip: to the text encoders), with their weights."""
    bare: ModelParts | None = None
    """The parts without LoRAs; None if no LoRA is applied."""
    references: tuple[ReferenceImage, ...] = ()
    """The reference images of IP-Adapters."""
    controls: tuple[AppliedControl, ...] = ()
    """ControlNets applied to the model instead of the prompts."""
    shift: float | None = None
    """Factor by which noise levels are shifted; None: the family's."""
    control_lora: AppliedLoRA | None = None
    """A control LoRA, whose control image comes with the prompts."""

    @property
    def bare_parts(self) -> ModelParts:
        """The parts without LoRAs."""
        return self.bare or self.parts


@dataclass(frozen=True)
class Clip:
    """The text encoders of a main model."""

    model: Model
    skipped: int = 0
    """Number of skipped layers; the model's own parts skip none."""
    parts: ModelParts | None = None
    """The model's parts with layers skipped."""

    def with_skipped_layers(self, context: BuildContext, count: int) -> Self:
        """Return the text encoders with their last `count` layers skipped, instead of those skipped now."""
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
    kind: ControlKind | None = None
    """What the control image shows, for union ControlNets."""


@dataclass(frozen=True)
class IPAdapterValue:
    """An IP-Adapter."""

    config: ModelConfig


@dataclass(frozen=True)
class ImageEncoderValue:
    """A CLIP vision model or another image encoder."""

    config: ModelConfig


@dataclass(frozen=True)
class EncodedImages:
    """Images for a style model, and the encoder that encodes them; the graph's node of the style model does it."""

    encoder: ModelConfig
    images: tuple[NodeOutput, ...]


@dataclass(frozen=True)
class StyleModelValue:
    """A model that appends images to prompts."""

    config: ModelConfig


@dataclass(frozen=True)
class Vae:
    """A VAE, and the recipe of its architecture."""

    vae: NodeOutput
    recipe: Recipe
    config: ModelConfig
    """Its record, or that of the main model that includes it."""

    @property
    def grid(self) -> int:
        """Multiple of pixels that its images' sides must have."""
        return architecture_of(self.config).grid


@dataclass(frozen=True)
class EncodedPrompt:
    """An encoded prompt."""

    conditioning: NodeOutput
    text: str
    """In the prompt syntax of its model."""
    clip: Clip
    region: NodeOutput | None = None
    """Mask tensor of the part of the image that it applies to; None: the whole image."""
    details: PromptDetails = PromptDetails()
    """Additional inputs of the encoder, such as sizes."""
    zeroed: bool = False
    """Whether ComfyUI would set it to zero; here it is an empty text."""
    styles: tuple[StyleImage, ...] = ()
    """Images of style models, which apply to the same part of the image."""
    steps: tuple[float, float] = (0.0, 1.0)
    """The range of the steps that it applies to."""


@dataclass(frozen=True)
class MaskedImage:
    """An image, and its part to repaint, for models that read both."""

    image: NodeOutput
    mask: "Mask"


@dataclass(frozen=True)
class EncodedPrompts:
    """A sequence of encoded prompts."""

    texts: tuple[EncodedPrompt, ...]
    controls: tuple[AppliedControl, ...] = ()
    """Controls of the sampling with these prompts."""
    guidance: float | None = None
    """Guidance of the sampling, for models that have it as an input; None: the model's default."""
    references: tuple[ReferenceImage, ...] = ()
    """Reference images that the model reads itself."""
    masked_image: MaskedImage | None = None
    control_image: NodeOutput | None = None
    """The image for the model's control LoRA."""

    def concat(self, other: Self) -> Self:
        """Return these prompts followed by those of `other`; a control or reference of both is kept once."""
        new_controls = tuple(control for control in other.controls if control not in self.controls)
        new_references = tuple(reference for reference in other.references if reference not in self.references)
        return type(self)(
            self.texts + other.texts,
            self.controls + new_controls,
            other.guidance if self.guidance is None else self.guidance,
            self.references + new_references,
            self.masked_image or other.masked_image,
            self.control_image or other.control_image,
        )

    @property
    def styles(self) -> tuple[StyleImage, ...]:
        """The images of style models, each once."""
        images: list[StyleImage] = []
        for style in (replace(style, region=text.region) for text in self.texts for style in text.styles):
            images += [] if style in images else [style]
        return tuple(images)

    @property
    def prompt(self) -> str:
        """The texts of all prompts, joined."""
        return " ".join(text.text or text.details.second_text or "" for text in self.texts)


@dataclass(frozen=True)
class Mask:
    """A grayscale image. Masks are white where the image changes in ComfyUI, and where it stays in the graph."""

    image: NodeOutput
    width: int
    height: int
    white_changes: bool = True

    def invert(self) -> Self:
        """Return the mask with the opposite meaning; this adds no node."""
        return replace(self, white_changes=not self.white_changes)

    def to_image(self, context: BuildContext, role: str, *, white_changes: bool) -> NodeOutput:
        """Return the image with the requested meaning of white, inverted by a node if necessary."""
        if self.white_changes is white_changes:
            return self.image
        return context.output(role, "tomask", "image", image=self.image, invert=True)


@dataclass(frozen=True)
class ImageBatch:
    """Images of one size."""

    nodes: tuple[NodeOutput, ...]
    width: int
    height: int
    metadata: tuple[NodeOutput | None, ...] = ()
    """The metadata output of each image."""

    @property
    def images_with_metadata(self) -> tuple[tuple[NodeOutput, NodeOutput | None], ...]:
        """The images, each with its metadata."""
        metadata = self.metadata or (None,) * len(self.nodes)
        return tuple(zip(self.nodes, metadata, strict=True))


@dataclass(frozen=True)
class Latents:
    """Latents of one size (in pixels; None: the model's default). Without nodes they are empty, `count` of them."""

    nodes: tuple[NodeOutput, ...] = ()
    """Outputs of graph nodes that also have the outputs `width` and `height`."""
    count: int = 1
    width: int | None = None
    height: int | None = None
    vae: Vae | None = None
    """The VAE that encoded them."""
    config: ModelConfig | None = None
    """The model that made them, or the VAE that encoded them."""
    image: NodeOutput | None = None
    """The image that they encode, for inpainting models."""
    mask: Mask | None = None
    """The area that changes."""
    metadata: tuple[NodeOutput | None, ...] = ()

    def require_nodes(self, operation: str) -> tuple[NodeOutput, ...]:
        """Return the nodes; raises CannotBuild when the latents are empty."""
        if not self.nodes:
            raise CannotBuild(f"{operation}: the latents are empty; connect a sampler or an encoder first")
        return self.nodes

    def require_space_of(self, config: ModelConfig) -> None:
        """Raise CannotBuild if they are latents of another kind than those of a model or VAE."""
        if self.config is not None and not share_latents(self.config, config):
            raise CannotBuild(
                f"the latents are those of {self.config.name} ({self.config.base}), which {config.name} ({config.base}) "
                "cannot read: connect a VAE or a model of the same kind, or decode and encode the image"
            )

    def size(self, operation: str) -> tuple[int, int]:
        """Return the size in pixels; raises CannotBuild if it is left to the model."""
        if self.width is None or self.height is None:
            raise CannotBuild(f"{operation}: the size of the latents is not set")
        return self.width, self.height


@dataclass(frozen=True)
class Guider:
    """A model with its prompts."""

    model: Model
    positive: EncodedPrompts
    negative: EncodedPrompts | None
    """None: no guidance by a negative prompt."""
    cfg: float


@dataclass(frozen=True)
class Noise:
    """The noise of a sampling; None: the latents already contain it."""

    seed: int | None


@dataclass(frozen=True)
class Sigmas:
    """A range of the noise levels of a schedule."""

    schedule: str
    """ComfyUI's name."""
    steps: int
    """Of the whole schedule."""
    start: float = 0.0
    """Share of the schedule that is skipped at the beginning."""
    end: float = 1.0

    @property
    def step_count(self) -> int:
        """The number of steps in the range."""
        return max(0, round((self.end - self.start) * self.steps))

    def split(self, step: int) -> tuple[Self, Self]:
        """Return the first `step` steps and the remaining ones."""
        middle = round(min(self.end, self.start + step / self.steps), 6)
        return replace(self, end=middle), replace(self, start=middle)


def check_image_count(count: int) -> int:
    """Return the number of images of a link; raises CannotBuild if it is over the limit."""
    if count > MAX_IMAGES:
        raise CannotBuild(f"{count} images are too many: at most {MAX_IMAGES} are allowed")
    return count
