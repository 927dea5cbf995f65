"""What is known of a model architecture without loading it: its latent space, its default settings, what it can do.

A family's `spec.py` states one Architecture for each of its bases. Nodes, the queue and the compatibility APIs read them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from invokeclone.graph.vocabulary.taxonomy import BaseModelType

GuidanceKind = Literal["cfg", "distilled", "none"]
"""`cfg`: classifier-free guidance with a negative prompt; `distilled`: the scale is an input of the network; `none`: no scale."""

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class PreviewMatrix:
    """A linear map from latents to red, green and blue in -1..1."""

    weights: Matrix
    """A row per channel."""
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)
    smoothing: Matrix | None = None
    """A 3 × 3 kernel that each color is convolved with."""


@dataclass(frozen=True)
class LatentSpace:
    """The geometry of latents (batch, channels, height, width) and what they look like."""

    channels: int
    spatial_factor: int = 8
    """Pixels per latent along each side."""
    packing: int = 1
    """Latents per token of the denoiser along each side."""
    grid: int = 8
    """Number of pixels that image sides are multiples of."""
    scale: float | None = None
    """Factor on the autoencoder's output, where its own configuration does not state one."""
    shift: float = 0.0
    """Subtracted from the autoencoder's output before scaling."""
    preview: PreviewMatrix | None = None
    frames: bool = False
    """Whether latents have an axis of frames behind the channels."""
    float32_noise: bool = False
    """Whether noise is drawn in float32 whatever the denoiser computes in."""

    def noise_shape(self, width: int, height: int) -> tuple[int, ...]:
        """Return the shape of the latents of one image; sides in pixels. Raises ValueError for sides off the grid."""
        if width % self.grid or height % self.grid:
            raise ValueError(f"width and height must be multiples of {self.grid}, not {width} x {height}")
        frames = (1,) if self.frames else ()
        return (1, self.channels, *frames, height // self.spatial_factor, width // self.spatial_factor)


@dataclass(frozen=True)
class ModelDefaults:
    """Settings of a generation where neither the request nor the model's record states them. Sizes in pixels."""

    width: int = 512
    height: int = 512
    steps: int = 30
    guidance: float = 7.5
    scheduler: str = "euler"


@dataclass(frozen=True)
class Capabilities:
    """What a family's recipe can do; whatever is not listed here is refused before anything is enqueued."""

    guidance: GuidanceKind = "cfg"
    schedulers: tuple[str, ...] = ("euler",)
    image_to_image: bool = False
    inpaint: bool = False
    hires_fix: bool = False
    """A second pass over the enlarged result."""
    partial_denoise: bool = False
    """Runs over a part of the schedule that neither add noise at the start nor remove it all at the end."""
    lora: bool = False
    control: bool = False
    reference_images: int = 0
    """Number of reference images that a generation may have."""
    regional_prompts: bool = False
    clip_skip: bool = False
    separate_vae: bool = False
    seamless: bool = False
    variation: bool = False
    """Noise of a second seed blended in."""
    cfg_rescale: bool = False
    refiner: BaseModelType | None = None
    """The base of models that can denoise the last part of a run."""


@dataclass(frozen=True)
class Architecture:
    """A base of a family."""

    base: BaseModelType
    latent_spaces: tuple[LatentSpace, ...]
    """The usual one first; others belong to variants and are known by their number of channels."""
    defaults: ModelDefaults = field(default_factory=ModelDefaults)
    capabilities: Capabilities = field(default_factory=Capabilities)
    noise_type: str | None = None
    """What the noise node calls this latent space."""

    @property
    def latent_space(self) -> LatentSpace:
        """The usual latent space."""
        return self.latent_spaces[0]

    @property
    def grid(self) -> int:
        """Number of pixels that image sides are multiples of."""
        return self.latent_space.grid

    def latent_space_of(self, shape: Sequence[int]) -> LatentSpace:
        """Return the latent space of latents of this shape, with or without a batch axis, or the usual one."""
        return next((space for space in self.latent_spaces if space.channels in shape[:2]), self.latent_space)
