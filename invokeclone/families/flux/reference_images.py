"""Images that FLUX.1 reads beside the prompt: references of Kontext, image and mask of Fill, images of control LoRAs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from invokeclone.components.autoencoders import vae as autoencoder
from invokeclone.components.flux.tokens import PACKING, pack, pad_to_tokens, place
from invokeclone.families.flux.denoiser import Reference
from invokeclone.families.flux.tokens import positions

_FACTOR = 8
"""Pixels per latent along each side."""


def kontext_references(vae: Any, images: Sequence[torch.Tensor], device: torch.device) -> list[Reference]:
    """Return the tokens of reference images (1, 3, height, width) in -1..1, which keep their sizes.

    They are placed side by side (`place`).
    """
    encoded = [pad_to_tokens(autoencoder.encode(vae, image, device, vae.dtype, sampled=False)) for image in images]
    places = place([(latents.shape[-2], latents.shape[-1]) for latents in encoded])
    return [
        Reference(pack(latents), positions(latents.shape[-2] // PACKING, latents.shape[-1] // PACKING, 1, offset))
        for latents, offset in zip(encoded, places, strict=True)
    ]


def fill_tokens(
    vae: Any, image: torch.Tensor, change: torch.Tensor, width: int, height: int, device: torch.device
) -> torch.Tensor:
    """Return the tokens (1, tokens, 320) of the image without its changing part, and of that part.

    The image (1, 3, any height, any width) is in -1..1; `change` (…, any height, any width) is true where it is
    painted anew. Width and height are those of the result, in pixels.
    """
    mask = functional.interpolate(
        change.reshape(1, 1, *change.shape[-2:]).float(), size=(height, width), mode="nearest"
    )
    latents = autoencoder.encode(vae, _resize(image, width, height) * (1.0 - mask), device, vae.dtype)
    planes = functional.pixel_unshuffle(mask, _FACTOR).to(latents)
    return torch.cat([pack(latents), pack(planes)], dim=2)


def control_tokens(vae: Any, image: torch.Tensor, width: int, height: int, device: torch.device) -> torch.Tensor:
    """Return the tokens (1, tokens, 64) of a control image (1, 3, any height, any width) in -1..1.

    Width and height are those of the result, in pixels.
    """
    return pack(autoencoder.encode(vae, _resize(image, width, height), device, vae.dtype))


def _resize(image: torch.Tensor, width: int, height: int) -> torch.Tensor:
    if image.shape[-2:] == (height, width):
        return image
    return functional.interpolate(image, size=(height, width), mode="bicubic", antialias=True).clamp(-1.0, 1.0)
