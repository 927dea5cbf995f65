"""Images that FLUX.1 reads beside the prompt: references of Kontext, image and mask of Fill, images of control LoRAs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from invokeclone.components.autoencoders import vae as autoencoder
from invokeclone.components.autoencoders.latent_spaces import FLUX
from invokeclone.components.flux.tokens import PACKING, pack, pad_to_tokens, place
from invokeclone.families.flux.denoiser import Reference
from invokeclone.families.flux.tokens import positions

_FACTOR = 8
"""Pixels per latent along each side."""


def kontext_references(vae: Any, images: Sequence[torch.Tensor], device: torch.device) -> list[Reference]:
    """Return the tokens of reference images (1, 3, height, width) in -1..1, which keep their sizes, of at least 8 pixels.

    They are placed side by side (`place`).
    """
    encoded = [pad_to_tokens(_encode_reference(vae, image, device)) for image in images]
    places = place([(latents.shape[-2], latents.shape[-1]) for latents in encoded])
    return [
        Reference(pack(latents), positions(latents.shape[-2] // PACKING, latents.shape[-1] // PACKING, 1, offset))
        for latents, offset in zip(encoded, places, strict=True)
    ]


def _encode_reference(vae: Any, image: torch.Tensor, device: torch.device) -> torch.Tensor:
    if min(image.shape[-2:]) < _FACTOR:
        raise ValueError(f"a reference image must be at least {_FACTOR} x {_FACTOR} pixels")
    return _encode(vae, image, device, sampled=False)


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
