"""Descriptions of model architectures: latent spaces, default settings, capabilities.

A family's `spec.py` defines an Architecture for each of its bases.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from invokeclone.graph.vocabulary.taxonomy import BaseModelType

GuidanceKind = Literal["cfg", "distilled", "none"]
"""`cfg`: classifier-free guidance with a negative prompt; `distilled`: the scale is a network input; `none`: no scale."""

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class PreviewMatrix:
    """A linear map from latents to red, green and blue in -1..1."""

    weights: Matrix
    """One row per latent channel."""
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)
    smoothing: Matrix | None = None
    """A 3 × 3 convolution kernel for each color channel."""


@dataclass(frozen=True)
class LatentSpace:
    """Geometry, scaling and preview of latents (batch, channels, height, width)."""

    channels: int
    spatial_factor: int = 8
    """Image pixels per latent pixel along each side."""
    packing: int = 1
    """Latent pixels per token of the denoiser along each side."""
    grid: int = 8
    """Image sides must be multiples of this number of pixels."""
    scale: float | None = None
    """Factor on the autoencoder's output, if its configuration does not specify one."""
    shift: float = 0.0
    """Subtracted from the autoencoder's output before scaling."""
    preview: PreviewMatrix | None = None
    frames: bool = False
    """Whether latents have a frames axis after the channels."""
    float32_noise: bool = False
    """Whether noise is generated in float32 regardless of the denoiser's dtype."""

    def noise_shape(self, width: int, height: int) -> tuple[int, ...]:
        """Return the shape of the latents of one image; sides in pixels.

        Raises ValueError for sides that are off the `grid` or not positive.
        """
        if width % self.grid or height % self.grid or min(width, height) <= 0:
            raise ValueError(f"width and height must be positive multiples of {self.grid}, not {width} x {height}")
        frames = (1,) if self.frames else ()
        return (1, self.channels, *frames, height // self.spatial_factor, width // self.spatial_factor)


@dataclass(frozen=True)
class ModelDefaults:
    """Settings used if neither the request nor the model's record specifies them. Sizes in pixels."""

    width: int = 512
    height: int = 512
    steps: int = 30
    guidance: float = 7.5
    scheduler: str = "euler"


@dataclass(frozen=True)
class Capabilities:
    """Features that a family's recipe supports; requests for others are rejected before anything is enqueued."""

    guidance: GuidanceKind = "cfg"
    text_to_image: bool = True
    """Images without an initial image; not with models that only repaint parts of one."""
    schedulers: tuple[str, ...] = ("euler",)
    image_to_image: bool = False
    inpaint: bool = False
    hires_fix: bool = False
    """A second run over the enlarged result."""
    partial_denoise: bool = False
    """Runs over part of the schedule, which need not add noise at the start nor remove all noise at the end."""
    lora: bool = False
    control: bool = False
    reference_images: int = 0
    """Maximum number of reference images."""
    reads_references: bool = False
    """Whether the model reads reference images itself; if not, IP-Adapters do."""
    style_images: bool = False
    """Images that a style model, such as FLUX Redux, appends to the prompt."""
    regional_prompts: bool = False
    clip_skip: bool = False
    separate_vae: bool = False
    seamless: bool = False
    variation: bool = False
    """Blending with the noise of a second seed."""
    cfg_rescale: bool = False
    refiner: BaseModelType | None = None
    """Base of the refiners that can denoise the last part of a run."""


@dataclass(frozen=True)
class ModelKind:
    """Models of a base whose capabilities differ from the others', by the variant or the name of the record."""

    capabilities: Capabilities
    variant: str | None = None
    name_part: str | None = None
    """A part of the name, in lower case, for models whose files do not tell them from others."""

    def includes(self, variant: str | None, name: str) -> bool:
        """Return whether a model with this variant and name is of this kind."""
        return variant == self.variant if self.name_part is None else self.name_part in name.casefold()


@dataclass(frozen=True)
class Architecture:
    """Description of one base."""

    base: BaseModelType
    latent_spaces: tuple[LatentSpace, ...]
    """The default first; others belong to variants and are identified by their number of channels."""
    defaults: ModelDefaults = field(default_factory=ModelDefaults)
    capabilities: Capabilities = field(default_factory=Capabilities)
    noise_type: str | None = None
    """The noise node's name of this latent space."""
    variant_defaults: Mapping[str, ModelDefaults] = field(default_factory=dict)
    """Settings of variants that differ from `defaults`, by the variant of the model's record."""
    kinds: Sequence[ModelKind] = ()
    """Models with other capabilities; the first kind that includes a model counts."""

    @property
    def latent_space(self) -> LatentSpace:
        """The default latent space."""
        return self.latent_spaces[0]

    @property
    def grid(self) -> int:
        """Image sides must be multiples of this number of pixels."""
        return self.latent_space.grid

    def of_model(self, variant: str | None, name: str) -> "Architecture":
        """Return the description with the capabilities of a model, by the variant and the name of its record."""
        kind = next((kind for kind in self.kinds if kind.includes(variant, name)), None)
        return self if kind is None else replace(self, capabilities=kind.capabilities)

    def defaults_of(self, variant: str | None) -> ModelDefaults:
        """Return the default settings of a variant."""
        return self.variant_defaults.get(str(variant), self.defaults)

    def latent_space_of(self, shape: Sequence[int]) -> LatentSpace:
        """Return the latent space whose channels match a latents shape (batch axis optional), else the default one."""
        return next((space for space in self.latent_spaces if space.channels in shape[:2]), self.latent_space)
