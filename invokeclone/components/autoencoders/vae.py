"""Encoding and decoding of images with a diffusers autoencoder: number format, tiling, conversion from and to PIL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from invokeclone.engine.patches import number_format
from invokeclone.kit.files.image_modes import convert

GRID = 8
"""Pixels per latent."""
_HALF = 0.5
_UNSPECIFIED_SIZE = 32
"""The sample size of diffusers' autoencoders whose configuration names none; too small for tiles."""
_TILE_GRID = 4 * GRID
"""Tiles overlap by a quarter, which must be whole latents: with other sizes, diffusers' images have a wrong size."""
_TILE = 512
"""Pixels per side of the tiles of such an autoencoder."""


def choose_dtype(device: torch.device | str, *, fp32: bool) -> torch.dtype:
    """Return the number format for Stable Diffusion's autoencoders: half precision on devices, unless `fp32`."""
    return torch.float32 if fp32 or torch.device(device).type == "cpu" else torch.float16


def image_to_tensor(image: Image.Image) -> torch.Tensor:
    """Return an image as (1, 3, height, width) in -1..1, resized to the latent grid; transparency is dropped."""
    array = np.asarray(fit_to_grid(convert(image, "RGB")), dtype=np.float32)
    return torch.from_numpy(array).permute(2, 0, 1).unsqueeze(0).div(127.5).sub(1.0)


def mask_to_tensor(image: Image.Image) -> torch.Tensor:
    """Return a mask image as (1, 1, height, width) in 0..1, resized to the latent grid."""
    array = np.asarray(fit_to_grid(convert(image, "L")), dtype=np.float32)
    return torch.from_numpy(array / 255.0)[None, None]


def fit_to_grid(image: Image.Image) -> Image.Image:
    """Return the image with sides reduced to multiples of 8."""
    width, height = (max(GRID, side - side % GRID) for side in image.size)
    return image if (width, height) == image.size else image.resize((width, height), Image.Resampling.LANCZOS)


def tensor_to_image(pixels: torch.Tensor, *, truncate: bool = False) -> Image.Image:
    """Return the first image of (batch, 3, height, width) in -1..1.

    Levels are rounded, or with `truncate` rounded down, as InvokeAI's nodes of transformer families do.
    """
    levels = pixels[0].float().add(1.0).mul(127.5).clamp(0, 255)
    array = (levels if truncate else levels.round()).to(device="cpu", dtype=torch.uint8)
    return Image.fromarray(array.permute(1, 2, 0).contiguous().numpy())


def hide_masked(pixels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return images (batch, 3, height, width) in -1..1 with 0 where `mask` is below 0.5.

    `mask` has the shape (1, 1, any height, any width).
    """
    resized = functional.interpolate(mask.float(), size=pixels.shape[-2:], mode="bilinear", align_corners=False)
    return pixels * (resized >= _HALF).to(pixels.dtype)


def encode(
    vae: Any,
    pixels: torch.Tensor,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    tile: int | None = None,
    shifted: bool = True,
    sampled: bool = True,
) -> torch.Tensor:
    """Return scaled float32 latents (batch, channels, height / 8, width / 8) of images in -1..1, computed in `dtype`.

    `tile` is the side of the tiles in pixels; 0 uses the autoencoder's own size and None disables tiling. Without
    `shifted`, the autoencoder's `shift_factor` is not used. Latents are drawn from the autoencoder's distribution with
    a fixed seed, or without `sampled` are its mode.
    """
    with torch.inference_mode(), number_format(vae, dtype), _tiles(vae, tile):
        encoded = vae.encode(pixels.to(device=device, dtype=dtype))
        if hasattr(encoded, "latent_dist") and not sampled:
            latents = encoded.latent_dist.mode()
        elif hasattr(encoded, "latent_dist"):
            generator = torch.Generator("cpu").manual_seed(
                0
            )  # a fixed seed makes the latents reproducible; the reference implementation draws without a seed
            latents = encoded.latent_dist.sample(generator=generator)
        else:
            latents = encoded.latents  # a tiny autoencoder has no distribution
        shift = _shift(vae) if shifted else 0.0
        scaled: torch.Tensor = (latents.float() - shift) * _scale(vae)
        return scaled


def decode(
    vae: Any,
    latents: torch.Tensor,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    tile: int | None = None,
    shifted: bool = True,
) -> torch.Tensor:
    """Return images (batch, 3, height * 8, width * 8) in about -1..1 of scaled latents.

    `dtype`, `tile` and `shifted` are as in `encode`. If half precision overflows, as with some autoencoders, the result is
    recomputed in float32. Raises ValueError for latents of another family, and for NaN or infinite results.
    """
    _check_channels(vae, latents)
    with torch.inference_mode():
        shift = _shift(vae) if shifted else 0.0
        unscaled = latents.to(device=device, dtype=torch.float32) / _scale(vae) + shift
        with number_format(vae, dtype), _tiles(vae, tile):
            pixels: torch.Tensor = vae.decode(unscaled.to(dtype), return_dict=False)[0]
        if torch.isfinite(pixels).all():
            return pixels
        if dtype != torch.float32:
            return decode(vae, latents, device, tile=tile, shifted=shifted)
        raise ValueError(f"{_culprit(latents)} NaN or infinite values: install the model again")


def _scale(vae: Any) -> float:
    """Return the factor on latents; 1 for autoencoders that have none, such as FLUX.2's."""
    return getattr(vae.config, "scaling_factor", 1.0)


def _shift(vae: Any) -> float:
    return getattr(vae.config, "shift_factor", None) or 0.0


def _culprit(latents: torch.Tensor) -> str:
    return "this VAE is damaged, it produces" if torch.isfinite(latents).all() else "the latents to decode have"


def _check_channels(vae: Any, latents: torch.Tensor) -> None:
    """Raise ValueError for latents of another family."""
    expected = getattr(vae.config, "latent_channels", latents.shape[1])
    if latents.shape[1] != expected:
        raise ValueError(
            f"this VAE needs latents of {expected} channels, not {latents.shape[1]}: select a VAE of the main model's base"
        )


@contextmanager
def _tiles(vae: Any, pixels: int | None) -> Iterator[None]:
    """Make a diffusers autoencoder work in tiles of `pixels` squared (0: its own size), or without tiles for None.

    Sizes are reduced to multiples of 32.
    """
    if pixels is None:
        yield
        return
    names = ("use_tiling", "tile_sample_min_size", "tile_latent_min_size")
    before = {name: getattr(vae, name) for name in names if hasattr(vae, name)}
    try:
        vae.enable_tiling()
        if not pixels and before.get("tile_sample_min_size") == _UNSPECIFIED_SIZE:
            pixels = _TILE
        if pixels:
            side = max(pixels - pixels % _TILE_GRID, _TILE_GRID)
            vae.tile_sample_min_size = side
            vae.tile_latent_min_size = side // GRID
        yield
    finally:
        for name, value in before.items():
            setattr(vae, name, value)
