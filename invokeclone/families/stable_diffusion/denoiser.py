"""The UNet as a denoiser: from latents, time and encoded prompts to its prediction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

from invokeclone.engine.denoise import OnStep
from invokeclone.families.stable_diffusion.conditioning import TextConditioning
from invokeclone.graph.context import PipelineIntermediateState


class Area(NamedTuple):
    """A rectangle in latents."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass
class UNetCall:
    """What one call of the UNet is given; controls add to it."""

    latents: torch.Tensor
    """(batch, 4, height, width), scaled, without the channels of an inpainting model."""
    timestep: torch.Tensor
    conditioning: TextConditioning
    """A row for each row of the latents; `conditioning.positive` says which are the positive prompt's."""
    index: int
    """Number of the loop's call, from 0."""
    count: int
    """Calls of the whole run."""
    size: tuple[int, int]
    """Height and width of the whole image's latents."""
    area: Area | None = None
    """Which part of the image the latents are; None: all of it."""
    down: tuple[torch.Tensor, ...] | None = None
    """Added to the UNet's skip connections."""
    mid: torch.Tensor | None = None
    """Added to the output of the UNet's middle block."""
    features: tuple[torch.Tensor, ...] | None = None
    """Added inside the UNet's down blocks."""

    def add_residuals(self, down: Sequence[torch.Tensor], mid: torch.Tensor) -> None:
        """Add to the skip connections and to the middle block's output."""
        self.down = tuple(down) if self.down is None else tuple(a + b for a, b in zip(self.down, down, strict=True))
        self.mid = mid if self.mid is None else self.mid + mid

    def add_features(self, features: Sequence[torch.Tensor]) -> None:
        """Add to what is added inside the down blocks."""
        before = self.features
        self.features = tuple(features if before is None else [a + b for a, b in zip(before, features, strict=True)])


class Attention(Protocol):
    """What the UNet's cross-attention goes through."""

    def prepare(self, conditioning: TextConditioning, index: int, count: int) -> None:
        """Set what the next call of the UNet attends to; it is in call `index` of `count` of the loop."""


class Control(Protocol):
    """Something that steers a run: a ControlNet or an adapter with its image."""

    def __call__(self, call: UNetCall) -> None:
        """Add to what the UNet is given."""


def is_active(index: int, count: int, begin: float, end: float) -> bool:
    """Tell whether a control that works from `begin` to `end`, fractions of a run, works in call `index` of `count`."""
    return math.floor(begin * count) <= index <= math.ceil(end * count)


def weight_at(weight: float | Sequence[float], index: int) -> float:
    """Return a control's weight in call `index`; a list that is too short goes on with its last value."""
    return weight[min(index, len(weight) - 1)] if isinstance(weight, Sequence) else weight


@dataclass
class UNetDenoiser:
    """Predicts with a diffusers UNet; latents and conditioning are on its device and in its number format."""

    unet: Any
    extra: torch.Tensor | None = None
    """(batch or 1, channels, height, width) beside the latents, for inpainting models."""
    attention: Attention | None = None
    controls: Sequence[Control] = ()
    count: int = 1
    """Calls of the whole run."""
    size: tuple[int, int] | None = None
    """Height and width of the whole image's latents; None: as those of a call."""
    index: int = 0
    """Number of the loop's call, from 0."""
    area: Area | None = None
    """Which part of the image the latents of the next calls are."""

    def counting(self, on_step: OnStep) -> OnStep:
        """Return an `on_step` for the loop that also notes here which call comes next."""

        def count(state: PipelineIntermediateState) -> None:
            self.index = state.step
            on_step(state)

        return count

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: TextConditioning) -> torch.Tensor:
        """Return the prediction, shaped as the latents."""
        # 1. what steers it
        size = self.size or (latents.shape[-2], latents.shape[-1])
        call = UNetCall(latents, timestep, conditioning, self.index, self.count, size, self.area)
        for control in self.controls:
            control(call)
        # 2. what an inpainting model sees
        inputs = latents
        if self.extra is not None:
            repeats = len(latents) // len(self.extra)  # with guidance the latents are there twice
            inputs = torch.cat([latents, self.extra.repeat(repeats, 1, 1, 1)], dim=1)
        # 3. what it attends to
        mask = conditioning.token_mask()
        if self.attention is not None:
            self.attention.prepare(conditioning, self.index, self.count)
            mask = None if conditioning.is_regional else mask
        prediction: torch.Tensor = self.unet(
            inputs,
            timestep,
            encoder_hidden_states=conditioning.embeds,
            encoder_attention_mask=mask,
            added_cond_kwargs=conditioning.cond_kwargs,
            down_block_additional_residuals=call.down,
            mid_block_additional_residual=call.mid,
            down_intrablock_additional_residuals=None if call.features is None else list(call.features),
            return_dict=False,
        )[0]
        return prediction
