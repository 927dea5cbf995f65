"""Images that FLUX.1 reads beside the prompt: references of Kontext, image and mask of Fill, images of control LoRAs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from invokeclone.components.autoencoders import vae as autoencoder
from invokeclone.families.flux.denoiser import Reference
from invokeclone.families.flux.tokens import PACKING, pack, positions

_FACTOR = 8
"""Pixels per latent along each side."""


def kontext_references(vae: Any, images: Sequence[torch.Tensor], device: torch.device) -> list[Reference]:
    """Return the tokens of reference images (1, 3, height, width) in -1..1, which keep their sizes.

    The first image is at the output's position; each further one is placed to the right of the area covered so far,
    or below it, whichever keeps the area closer to a square.
    """
    references: list[Reference] = []
    covered_height = covered_width = 0
    for image in images:
        latents = autoencoder.encode(vae, image, device, vae.dtype, sampled=False)
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


def fill_tokens(
    vae: Any, image: torch.Tensor, change: torch.Tensor, width: int, height: int, device: torch.device
) -> torch.Tensor:
    """Return the tokens (1, tokens, 320) of the image without its changing part, and of that part, in the VAE's format.

    The image (1, 3, any height, any width) is in -1..1; `change` (…, any height, any width) is true where it is
    painted anew. Width and height are those of the result, in pixels.
    """
    mask = functional.interpolate(
        change.reshape(1, 1, *change.shape[-2:]).float(), size=(height, width), mode="nearest"
    )
    latents = autoencoder.encode(vae, _resize(image, width, height) * (1.0 - mask), device, vae.dtype)
    planes = functional.pixel_unshuffle(mask, _FACTOR).to(latents)
    return torch.cat([pack(latents), pack(planes)], dim=2).to(vae.dtype)


def control_tokens(vae: Any, image: torch.Tensor, width: int, height: int, device: torch.device) -> torch.Tensor:
    """Return the tokens (1, tokens, 64) of a control image (1, 3, any height, any width) in -1..1.

    Width and height are those of the result, in pixels.
    """
    return pack(autoencoder.encode(vae, _resize(image, width, height), device, vae.dtype))


def _resize(image: torch.Tensor, width: int, height: int) -> torch.Tensor:
    if image.shape[-2:] == (height, width):
        return image
    return functional.interpolate(image, size=(height, width), mode="bicubic", antialias=True).clamp(-1.0, 1.0)
