"""Z-Image's prompts: as they are stored, and as the denoiser uses them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from invokeclone.engine.conditioning import ConditioningTensors

TOKEN_GRID = 32
"""The transformer pads text and image to multiples of this number of tokens."""


@dataclass
class ZImageConditioningInfo(ConditioningTensors):
    """Qwen3's hidden states of a prompt (1, tokens, width), without padding."""

    prompt_embeds: torch.Tensor


@dataclass
class PromptOfRegion:
    """A prompt's embeddings (1, tokens, width) and a mask (…, height, width) of the region it applies to.

    A mask of None means the part of the image that no other mask covers.
    """

    embeds: torch.Tensor
    mask: torch.Tensor | None = None


@dataclass
class ZImageConditioning(ConditioningTensors):
    """One side of the guidance: text (1, tokens, width)."""

    text: torch.Tensor
    attention_mask: torch.Tensor | None = None
    """Which tokens, image first, attend to which: boolean (1, 1, tokens, tokens). None permits everything."""


def build_conditioning(regions: Sequence[PromptOfRegion], rows: int, columns: int) -> ZImageConditioning:
    """Return the conditioning of an image of `rows` by `columns` tokens; the prompts follow one another."""
    text = torch.cat([region.embeds for region in regions], dim=1)
    mask = None
    if any(region.mask is not None for region in regions):
        mask = _attention_mask(regions, text.shape[1], rows, columns)
    return ZImageConditioning(text, mask)


def _attention_mask(regions: Sequence[PromptOfRegion], text_tokens: int, rows: int, columns: int) -> torch.Tensor:
    """Return a boolean mask (1, 1, tokens, tokens).

    A prompt attends to itself and to its region, a region to its prompt; image tokens attend to the whole image.
    Padding attends to everything and everything to it, as without regions.
    """
    image_tokens = rows * columns
    text_begin = _round_up(image_tokens)
    masks = [None if region.mask is None else _on_tokens(region.mask, rows, columns) for region in regions]
    covered = torch.stack([mask for mask in masks if mask is not None]).any(dim=0)
    attends = torch.ones((text_begin + _round_up(text_tokens),) * 2, dtype=torch.bool)
    image, text = slice(0, image_tokens), slice(text_begin, text_begin + text_tokens)
    attends[text, text] = attends[text, image] = attends[image, text] = False
    begin = text_begin
    for region, mask in zip(regions, masks, strict=True):
        own_text = slice(begin, begin + region.embeds.shape[1])
        area = ~covered if mask is None else mask
        attends[own_text, own_text] = True
        attends[own_text, image] = area
        attends[image, own_text] = area[:, None]
        begin = own_text.stop
    return attends[None, None]


def _round_up(tokens: int) -> int:
    return tokens + -tokens % TOKEN_GRID


def _on_tokens(mask: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return a region's mask as one boolean per image token."""
    planes = mask.reshape(1, 1, *mask.shape[-2:]).float()
    resized = functional.interpolate(planes, size=(rows, columns), mode="nearest")
    return (resized > 0.5).flatten()  # noqa: PLR2004 - a half
