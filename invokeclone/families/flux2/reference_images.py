"""Reference images, which FLUX.2 reads beside the prompt."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from invokeclone.components.autoencoders import vae as autoencoder
from invokeclone.components.autoencoders.kl_flux2 import statistics_of
from invokeclone.components.flux.tokens import PACKING, pack, pad_to_tokens, place
from invokeclone.families.flux2.pipeline import References, image_positions

_ONE, _SEVERAL = 2024**2, 1024**2
"""Pixels to which the only reference image, or each of several, is reduced."""
_TILE = 512
_INDEX_STEP = 10


def encode_references(vae: Any, images: Sequence[Image.Image], device: torch.device) -> References | None:
    """Return the tokens of reference images, None without images."""
    if not images:
        return None
    statistics = statistics_of(vae)
    encoded = []
    for image in images:
        pixels = autoencoder.image_to_tensor(limit_size(image, _ONE if len(images) == 1 else _SEVERAL))
        latents = autoencoder.encode(vae, pixels, device, vae.dtype, tile=_TILE, sampled=False)
        encoded.append(statistics.normalize(pad_to_tokens(latents)))
    places = place([(latents.shape[-2], latents.shape[-1]) for latents in encoded])
    positions = [
        image_positions(latents.shape[-2] // PACKING, latents.shape[-1] // PACKING, _INDEX_STEP * (number + 1), offset)
        for number, (latents, offset) in enumerate(zip(encoded, places, strict=True))
    ]
    return References(torch.cat([pack(latents) for latents in encoded], dim=1), torch.cat(positions))


def limit_size(image: Image.Image, pixels: int) -> Image.Image:
    """Return an image with at most this many pixels."""
    area = image.width * image.height
    if area <= pixels:
        return image
    scale = math.sqrt(pixels / area)
    size = max(1, int(image.width * scale)), max(1, int(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)
