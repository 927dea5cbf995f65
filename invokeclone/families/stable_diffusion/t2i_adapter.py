"""Application of a T2I-Adapter: features for the UNet's down blocks (arXiv 2302.08453)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from invokeclone.engine.controls import is_active, weight_at
from invokeclone.families.stable_diffusion.control_image import ControlImage
from invokeclone.families.stable_diffusion.denoiser import Area, UNetCall
from invokeclone.graph.vocabulary.taxonomy import BaseModelType

STEPS = {BaseModelType.StableDiffusion1: 8, BaseModelType.StableDiffusionXL: 4}
"""Latents per column of the smallest feature map, per base; the image is cropped to a multiple of it."""


@dataclass
class T2IAdapter:
    """Adds an adapter's features to a call. Implements `denoiser.Control`."""

    net: Any
    """A diffusers T2IAdapter on the device of the latents."""
    base: BaseModelType
    image: ControlImage
    weight: float | Sequence[float] = 1.0
    begin: float = 0.0
    end: float = 1.0
    _features: dict[Area | None, tuple[torch.Tensor, ...]] = field(default_factory=dict, init=False)
    """The feature maps, by area of the image."""

    def __call__(self, call: UNetCall) -> None:
        """Add the features, if the adapter is active in this call."""
        weight = weight_at(self.weight, call.index)
        if weight == 0 or not is_active(call.index, call.count, self.begin, self.end):
            return
        if call.area not in self._features:
            self._features[call.area] = self._maps(call)
        rows = len(call.latents)
        call.add_features([weight * part.expand(rows, -1, -1, -1) for part in self._features[call.area]])

    def _maps(self, call: UNetCall) -> tuple[torch.Tensor, ...]:
        """Return the feature maps (1, channels, height, width) in the sizes of the UNet's."""
        height, width = call.latents.shape[-2:]
        maps = self.net(self._input(call).to(call.latents.device, self.net.dtype))
        return tuple(_pad(part, height, width).to(call.latents.dtype) for part in maps)

    def _input(self, call: UNetCall) -> torch.Tensor:
        """Return the network's input: the image, cropped at the right and bottom to a size that it can halve.

        Raises ValueError for an image that is too small.
        """
        height, width = call.latents.shape[-2:]
        step, multiple = STEPS[self.base], self.net.total_downscale_factor
        if min(height, width) < step:
            side = step * 8
            raise ValueError(f"images with a T2I-Adapter must be at least {side} pixels wide and high")
        pixels = self.image.pixels(call)
        if self.base == BaseModelType.StableDiffusionXL:
            pixels = pixels.flip(1)  # BGR
        pixels = pixels[:, : self.net.config.in_channels]
        return pixels[..., : height // step * multiple, : width // step * multiple]


def _pad(part: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return a feature map, zero-padded at the right and bottom to the latents' level with as many columns."""
    level = 1 << (width // part.shape[-1]).bit_length() - 1  # each level halves, so it is a power of two
    missing = -(-height // level) - part.shape[-2], -(-width // level) - part.shape[-1]
    return functional.pad(part, (0, missing[1], 0, missing[0]))
