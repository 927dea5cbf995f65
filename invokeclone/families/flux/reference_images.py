"""Images that FLUX.1 reads beside the prompt: references of Kontext, image and mask of Fill, images of control LoRAs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from invokeclone.components.autoencoders import vae as autoencoder
from invokeclone.components.autoencoders.latent_spaces import FLUX
from invokeclone.families.flux.denoiser import Reference
from invokeclone.families.flux.tokens import PACKING, pack, positions

_FACTOR = 8
"""Pixels per latent along each side."""


def kontext_references(vae: Any, images: Sequence[torch.Tensor], device: torch.device) -> list[Reference]:
    """Return the tokens of reference images (1, 3, height, width) in -1..1, which keep their sizes, of at least 8 pixels.

    The first image is at the output's position; each further one is placed to the right of the area covered so far,
    or below it, whichever keeps the area closer to a square.
    """
    references: list[Reference] = []
    covered_height = covered_width = 0
    for image in images:
        if min(image.shape[-2:]) < _FACTOR:
            raise ValueError(f"a reference image must be at least {_FACTOR} x {_FACTOR} pixels")
        latents = _encode(vae, image, device, sampled=False)
        latents = _pad_to_tokens(latents)
        height, width = latents.shape[-2:]
        row = column = 0
        if references:
            if covered_height + height > covered_width + width:
                column = covered_width
            else:
                row = covered_height
        covered_height, covered_width = max(covered_height, row + height), max(covered_width, column + width)
        grid = positions(height // PACKING, width // PACKING, 1, (row // PACKING, column // PACKING))
        references.append(Reference(pack(latents), grid))
    return references


def _pad_to_tokens(latents: torch.Tensor) -> torch.Tensor:
    """Return latents with even sides, padded by wrapping around."""
    down, right = latents.shape[-2] % PACKING, latents.shape[-1] % PACKING
    return functional.pad(latents, (0, right, 0, down), mode="circular") if down or right else latents


def fill_tokens(vae: Any, image: torch.Tensor, change: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the tokens (1, tokens, 320) of the image without its changing part, and of that part, in the VAE's format.

    The image (1, 3, height, width) is in -1..1; `change` (…, any height, any width) is true where it is painted anew.
    """
    height, width = image.shape[-2:]
    mask = functional.interpolate(
        change.reshape(1, 1, *change.shape[-2:]).float(), size=(height, width), mode="nearest"
    )
    latents = _encode(vae, image * (1.0 - mask), device)
    planes = functional.pixel_unshuffle(mask, _FACTOR).to(latents)
    return torch.cat([pack(latents), pack(planes)], dim=2).to(vae.dtype)


def control_tokens(vae: Any, image: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the tokens (1, tokens, 64) of a control image (1, 3, height, width) in -1..1."""
    return pack(_encode(vae, image, device))


def _encode(vae: Any, image: torch.Tensor, device: torch.device, *, sampled: bool = True) -> torch.Tensor:
    """Return an image's latents. Raises ValueError for a VAE of another family."""
    if (channels := getattr(vae.config, "latent_channels", FLUX.channels)) != FLUX.channels:
        raise ValueError(
            f"this VAE makes latents of {channels} channels, but FLUX.1 needs {FLUX.channels}: connect a VAE of FLUX.1"
        )
    return autoencoder.encode(vae, image, device, vae.dtype, sampled=sampled)
