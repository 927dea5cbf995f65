"""What links between ComfyUI's nodes carry while a workflow is drawn: where things come out in our graph, and what is known of them.

A link of pictures or latents carries several of one size: each is a node of ours.
"""

from dataclasses import dataclass, replace
from typing import Self

from invokeclone.models.configs import ModelConfig
from invokeclone.shims.comfyui.vocabulary import MOST_PICTURES, CannotDraw, Lead, Place


@dataclass(frozen=True)
class Model:
    """A denoiser."""

    unet: Lead
    vae: Lead
    """Some VAE of the model, for nodes of ours that insist on one."""
    config: ModelConfig


@dataclass(frozen=True)
class Clip:
    """A text encoder."""

    clip: Lead
    whole: Lead
    """The encoder before any of its layers were skipped."""
    skipped: int = 0


@dataclass(frozen=True)
class Text:
    """An encoded prompt."""

    conditioning: Lead
    prompt: str
    clip: Clip
    masked: bool = False
    """Whether it holds in a part of the picture only."""


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts, put behind each other."""

    texts: tuple[Text, ...]

    @property
    def prompt(self) -> str:
        """All of the words."""
        return " ".join(text.prompt for text in self.texts)


@dataclass(frozen=True)
class Mask:
    """An image in gray. ComfyUI's masks are white where something changes; ours are where it stays."""

    image: Lead
    width: int
    height: int
    white_changes: bool = True

    def inverted(self) -> Self:
        """Return the mask with the other meaning, which costs nothing."""
        return replace(self, white_changes=not self.white_changes)

    def drawn(self, place: Place, role: str, *, white_changes: bool) -> Lead:
        """Return the image whose white means what is asked for."""
        if self.white_changes is white_changes:
            return self.image
        return Lead(f"{place.add(role, 'tomask', image=self.image, invert=True)}.image")


@dataclass(frozen=True)
class Images:
    """Pictures of one size."""

    nodes: tuple[Lead, ...]
    width: int
    height: int
    metadata: tuple[Lead | None, ...] = ()
    """What says how each was made."""

    @property
    def made(self) -> tuple[tuple[Lead, Lead | None], ...]:
        """The pictures, each with its metadata."""
        metadata = self.metadata or (None,) * len(self.nodes)
        return tuple(zip(self.nodes, metadata, strict=True))


@dataclass(frozen=True)
class Latents:
    """Latents of one size (in pixels; None: the model's own). Without nodes they are empty, `count` of them."""

    nodes: tuple[str, ...] = ()
    """Nodes of ours with the outputs `latents`, `width` and `height`."""
    count: int = 1
    width: int | None = None
    height: int | None = None
    vae: Lead | None = None
    """What they were encoded with."""
    image: Lead | None = None
    """The picture that they are of, for inpainting models."""
    mask: Mask | None = None
    """Where something changes."""
    metadata: tuple[Lead | None, ...] = ()

    def filled(self, what: str) -> tuple[str, ...]:
        """Return the nodes; raises CannotDraw when the latents are empty."""
        if not self.nodes:
            raise CannotDraw(f"{what}: the latents are empty, a sampler or an encoder must come before")
        return self.nodes

    def size(self, what: str) -> tuple[int, int]:
        """Return the size in pixels; raises CannotDraw while only the model knows it."""
        if self.width is None or self.height is None:
            raise CannotDraw(f"{what}: the size of the latents is left open")
        return self.width, self.height


def few(count: int) -> int:
    """Return how many pictures a link will carry; raises CannotDraw when they are too many."""
    if count > MOST_PICTURES:
        raise CannotDraw(f"{count} pictures at once are too many: at most {MOST_PICTURES}")
    return count
