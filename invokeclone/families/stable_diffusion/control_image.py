"""Control images of ControlNets and T2I-Adapters, resized when the first call provides the latents' size."""

from dataclasses import dataclass, field

import torch
from PIL import Image

from invokeclone.components.control.fields import CONTROLNET_RESIZE_VALUES
from invokeclone.components.control.images import prepare
from invokeclone.families.stable_diffusion.denoiser import UNetCall

LATENT_SIDE = 8
"""Pixels per latent along an axis."""


@dataclass
class ControlImage:
    """A control image and its resized version."""

    image: Image.Image
    resize_mode: CONTROLNET_RESIZE_VALUES = "just_resize"
    _prepared: tuple[tuple[int, int], torch.Tensor] | None = field(default=None, init=False)

    def pixels(self, call: UNetCall) -> torch.Tensor:
        """Return the image in the call's area, (1, 3, height * 8, width * 8) in 0..1, on the CPU."""
        if self._prepared is None or self._prepared[0] != call.size:
            height, width = (side * LATENT_SIDE for side in call.size)
            values = prepare(self.image, (width, height), self.resize_mode)
            self._prepared = call.size, torch.from_numpy(values).permute(2, 0, 1)[None]
        whole = self._prepared[1]
        if call.area is None:
            return whole
        top, bottom, left, right = (edge * LATENT_SIDE for edge in call.area)
        return whole[..., top:bottom, left:right]
