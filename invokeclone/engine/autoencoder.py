"""Pictures to latents and back by a diffusers autoencoder: number format, tiles, and PIL at the other end.

The four dimensions and the scaling factor are all it knows of a latent space.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image

from invokeclone.engine.patches import number_format, tiles

GRID = 8
"""Pixels per latent."""


def pixels_of(image: Image.Image) -> torch.Tensor:
    """Return an RGB picture as (1, 3, height, width) in -1..1, made to fit the latent grid."""
    array = np.asarray(to_grid(image.convert("RGB")), dtype=np.float32)
    return torch.from_numpy(array).permute(2, 0, 1).unsqueeze(0).div(127.5).sub(1.0)


def mask_of(image: Image.Image) -> torch.Tensor:
    """Return a gray picture as (1, 1, height, width) in 0..1, made to fit the latent grid."""
    array = np.asarray(to_grid(image.convert("L")), dtype=np.float32)
    return torch.from_numpy(array / 255.0)[None, None]


def to_grid(image: Image.Image) -> Image.Image:
    """Return the picture with sides that are multiples of 8, made a little smaller if need be."""
    width, height = (max(GRID, side - side % GRID) for side in image.size)
    return image if (width, height) == image.size else image.resize((width, height), Image.Resampling.LANCZOS)


def picture_of(pixels: torch.Tensor) -> Image.Image:
    """Return the first picture of (batch, 3, height, width) in -1..1."""
    array = pixels[0].float().add(1.0).mul(127.5).clamp(0, 255).round().to(device="cpu", dtype=torch.uint8)
    return Image.fromarray(array.permute(1, 2, 0).contiguous().numpy())


def encode(
    vae: Any, pixels: torch.Tensor, device: torch.device, *, fp32: bool = False, tile: int | None = None
) -> torch.Tensor:
    """Return scaled latents (1, channels, height / 8, width / 8) in float32 of pictures in -1..1.

    `tile` is the side of the tiles in pixels, 0 the autoencoder's own, None: no tiles. The same picture gives the same latents.
    """
    with torch.inference_mode():
        dtype = torch.float32 if fp32 else vae.dtype
        with number_format(vae, dtype), tiles(vae, tile):
            encoded = vae.encode(pixels.to(device=device, dtype=dtype))
            if hasattr(encoded, "latent_dist"):
                latents = encoded.latent_dist.sample(generator=torch.Generator("cpu").manual_seed(0))
            else:
                latents = encoded.latents  # a tiny autoencoder has no distribution
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        return (latents.float() - shift) * vae.config.scaling_factor


def decode(
    vae: Any, latents: torch.Tensor, device: torch.device, *, fp32: bool = False, tile: int | None = None
) -> torch.Tensor:
    """Return pictures (batch, 3, height * 8, width * 8) in about -1..1 of scaled latents; `tile` as in `encode`.

    Half precision that overflows, as some autoencoders do, is computed once more in float32.
    """
    with torch.inference_mode():
        dtype = torch.float32 if fp32 else vae.dtype
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        scaled = latents.to(device=device, dtype=torch.float32) / vae.config.scaling_factor + shift
        with number_format(vae, dtype), tiles(vae, tile):
            pixels: torch.Tensor = vae.decode(scaled.to(dtype), return_dict=False)[0]
        if dtype != torch.float32 and not torch.isfinite(pixels).all():
            return decode(vae, latents, device, fp32=True, tile=tile)
        return pixels
