"""Previews of latents by a tiny autoencoder."""

from typing import Any

import torch
from PIL import Image

from invokeclone.components.autoencoders import vae as autoencoder

LARGEST_SIDE = 512
"""Pixels per side of a preview at most, if the autoencoder's scale permits it."""


def decode_preview(vae: Any, latents: torch.Tensor, device: torch.device) -> tuple[Image.Image, int]:
    """Return an image of the first latents (batch, channels, height, width), and its scale factor to full size.

    Raises ValueError for latents of another family.
    """
    pixels = autoencoder.decode(vae, latents[:1], device, vae.dtype)
    image = autoencoder.tensor_to_image(pixels)
    factor = 1
    while max(image.size) > LARGEST_SIDE * factor and factor < autoencoder.GRID:
        factor *= 2
    return image.reduce(factor), factor
