"""Application of a ControlNet: residuals for the UNet (arXiv 2302.05543)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from invokeclone.components.control.fields import CONTROLNET_MODE_VALUES
from invokeclone.engine.controls import is_active, weight_at
from invokeclone.families.stable_diffusion.control_image import ControlImage
from invokeclone.families.stable_diffusion.denoiser import Area, UNetCall

POSITIVE_ONLY = ("more_control", "unbalanced")
"""Modes without control of the negative prompt's rows."""
GUESSING = ("more_control", "more_prompt")
"""Modes in which residuals are weighted from a tenth of the weight for the first up to all of it for the last."""


@dataclass
class ControlNet:
    """Adds a ControlNet's residuals to a call. Implements `denoiser.Control`."""

    net: Any
    """A diffusers ControlNetModel on the device of the latents."""
    image: ControlImage
    weight: float | Sequence[float] = 1.0
    begin: float = 0.0
    end: float = 1.0
    mode: CONTROLNET_MODE_VALUES = "balanced"
    _pixels: dict[Area | None, torch.Tensor] = field(default_factory=dict, init=False)
    """The network's input, by area of the image."""

    def __call__(self, call: UNetCall) -> None:
        """Add the residuals, if the ControlNet is active in this call."""
        weight = weight_at(self.weight, call.index)
        if weight == 0 or not is_active(call.index, call.count, self.begin, self.end):
            return
        conditioning, only = call.conditioning, self.mode in POSITIVE_ONLY
        rows = [row for row, is_positive in enumerate(conditioning.positive) if is_positive or not only]
        groups: dict[int, list[int]] = {}
        for row in rows:  # diffusers' ControlNets do not mask padding, so rows of each length get a call of their own
            groups.setdefault(conditioning.lengths[row], []).append(row)
        for group in groups.values():
            parts = self._residuals(call, group, weight)
            down, mid = [_spread(part, group, len(conditioning.positive)) for part in parts[0]], parts[1]
            call.add_residuals(down, _spread(mid, group, len(conditioning.positive)))

    def _residuals(self, call: UNetCall, rows: list[int], weight: float) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the residuals of these rows, whose prompts have equal lengths, in the latents' number format."""
        dtype = self.net.dtype
        conditioning = call.conditioning.select_rows(rows).to(call.latents.device, dtype)
        down, mid = self.net(
            call.latents[rows].to(dtype),
            call.timestep,
            encoder_hidden_states=conditioning.embeds,
            controlnet_cond=self._image(call, dtype).expand(len(rows), -1, -1, -1),
            conditioning_scale=weight,
            added_cond_kwargs=conditioning.cond_kwargs,
            guess_mode=self.mode in GUESSING,
            return_dict=False,
        )
        return [part.to(call.latents.dtype) for part in down], mid.to(call.latents.dtype)

    def _image(self, call: UNetCall, dtype: torch.dtype) -> torch.Tensor:
        """Return the network's input, (1, channels, height * 8, width * 8)."""
        if call.area not in self._pixels:
            channels = self.net.config.conditioning_channels
            pixels = self.image.pixels(call)[:, :channels]
            self._pixels[call.area] = pixels.to(call.latents.device, dtype)
        return self._pixels[call.area]


def _spread(part: torch.Tensor, rows: list[int], count: int) -> torch.Tensor:
    """Return `part`, which contains only `rows`, extended to `count` rows with zeros."""
    if len(rows) == count:
        return part
    whole = part.new_zeros((count, *part.shape[1:]))
    whole[rows] = part
    return whole
