"""Denoiser adapter of the UNet: from latents, timestep and encoded prompts to its prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

from invokeclone.engine.denoise import OnStep
from invokeclone.families.stable_diffusion.coarse import CoarsePrediction
from invokeclone.families.stable_diffusion.conditioning import TextConditioning
from invokeclone.graph.context import PipelineIntermediateState


class Area(NamedTuple):
    """A rectangle of the image, measured in latents."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass
class UNetCall:
    """The inputs of one UNet call. Controls add to its residuals and features."""

    latents: torch.Tensor
    """Shape (batch, 4, height, width), scaled, without the additional channels of inpainting models."""
    timestep: torch.Tensor
    conditioning: TextConditioning
    """One row per row of the latents; `conditioning.positive` marks the rows of the positive prompt."""
    index: int
    """Index of the loop's call, from 0."""
    count: int
    """Number of calls of the whole run."""
    size: tuple[int, int]
    """Height and width of the whole image's latents."""
    area: Area | None = None
    """The part of the image that the latents cover; None for all of it."""
    down: tuple[torch.Tensor, ...] | None = None
    """Residuals for the UNet's skip connections."""
    mid: torch.Tensor | None = None
    """Residual for the output of the UNet's middle block."""
    features: tuple[torch.Tensor, ...] | None = None
    """Features added inside the UNet's down blocks."""

    def add_residuals(self, down: Sequence[torch.Tensor], mid: torch.Tensor) -> None:
        """Add residuals for the skip connections and the middle block."""
        self.down = tuple(down) if self.down is None else tuple(a + b for a, b in zip(self.down, down, strict=True))
        self.mid = mid if self.mid is None else self.mid + mid

    def add_features(self, features: Sequence[torch.Tensor]) -> None:
        """Add features for the down blocks."""
        before = self.features
        self.features = tuple(features if before is None else [a + b for a, b in zip(before, features, strict=True)])


class Attention(Protocol):
    """Replacement of the UNet's cross-attention."""

    def prepare(self, conditioning: TextConditioning, index: int, count: int) -> None:
        """Set the prompts for the next UNet call, which belongs to call `index` of `count` of the loop."""


class Control(Protocol):
    """A ControlNet or an adapter with its image, which controls a run."""

    def __call__(self, call: UNetCall) -> None:
        """Add residuals or features to the call."""


@dataclass
class UNetDenoiser:
    """Predicts with a diffusers UNet. Latents and conditioning are on its device and in its number format."""

    unet: Any
    extra: torch.Tensor | None = None
    """Additional channels (batch or 1, channels, height, width) for inpainting models."""
    attention: Attention | None = None
    controls: Sequence[Control] = ()
    count: int = 1
    """Number of calls of the whole run."""
    size: tuple[int, int] | None = None
    """Height and width of the whole image's latents; None for those of the call."""
    index: int = 0
    """Index of the loop's call, from 0."""
    area: Area | None = None
    """The part of the image that the latents of the next calls cover."""
    coarse: CoarsePrediction | None = None
    """For a UNet trained on small images; not with additional channels, controls or another attention."""

    def counting(self, on_step: OnStep) -> OnStep:
        """Return an `on_step` for the loop that also updates `index`."""

        def count(state: PipelineIntermediateState) -> None:
            self.index = state.step
            on_step(state)

        return count

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: TextConditioning) -> torch.Tensor:
        """Return the prediction, with the shape of the latents."""
        # 1. controls
        size = self.size or (latents.shape[-2], latents.shape[-1])
        call = UNetCall(latents, timestep, conditioning, self.index, self.count, size, self.area)
        for control in self.controls:
            control(call)
        # 2. additional channels of inpainting models
        inputs = latents
        if self.extra is not None:
            repeats = len(latents) // len(self.extra)  # guidance doubles the batch
            inputs = torch.cat([latents, self.extra.repeat(repeats, 1, 1, 1)], dim=1)
        # 3. attention
        mask = conditioning.token_mask()
        if self.attention is not None:
            self.attention.prepare(conditioning, self.index, self.count)
            mask = None if conditioning.is_regional else mask

        # 4. the network
        def predict(scaled: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            prediction: torch.Tensor = self.unet(
                scaled,
                time,
                encoder_hidden_states=conditioning.embeds,
                encoder_attention_mask=mask,
                added_cond_kwargs=conditioning.cond_kwargs,
                down_block_additional_residuals=call.down,
                mid_block_additional_residual=call.mid,
                down_intrablock_additional_residuals=None if call.features is None else list(call.features),
                return_dict=False,
            )[0]
            return prediction

        return predict(inputs, timestep) if self.coarse is None else self.coarse(predict, inputs, timestep)
