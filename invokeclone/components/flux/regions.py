"""Prompts for regions of an image: which tokens of text and image attend to which."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass
class PromptRegion:
    """A part of the text: embeddings (1, tokens, width) and a mask (…, height, width) of the region it applies to.

    A mask of None means the part of the image that no other mask covers.
    """

    embeds: torch.Tensor
    mask: torch.Tensor | None = None


def attention_mask(regions: Sequence[PromptRegion], rows: int, columns: int) -> torch.Tensor | None:
    """Return a boolean mask (1, 1, tokens, tokens), text first, for an image of `rows` by `columns` tokens.

    None, which permits everything, if no region has a mask.

    A part of the text attends to itself and to its region; a region attends to its text and to itself; image tokens
    outside all regions attend to the whole image.
    """
    if all(region.mask is None for region in regions):
        return None
    text_tokens, image_tokens = sum(region.embeds.shape[1] for region in regions), rows * columns
    masks = [None if region.mask is None else _on_tokens(region.mask, rows, columns) for region in regions]
    covered = torch.stack([mask for mask in masks if mask is not None]).any(dim=0)
    attends = torch.zeros(text_tokens + image_tokens, text_tokens + image_tokens, dtype=torch.bool)
    image = slice(text_tokens, None)
    first = 0
    for region, mask in zip(regions, masks, strict=True):
        own_text = slice(first, first + region.embeds.shape[1])
        area = ~covered if mask is None else mask
        attends[own_text, own_text] = True
        attends[own_text, image] = area
        attends[image, own_text] = area[:, None]
        if mask is not None:
            attends[image, image] |= torch.outer(mask, mask)
        first = own_text.stop
    attends[image, image] |= ~covered[:, None]
    return attends[None, None]


def _on_tokens(mask: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return a region's mask as one boolean per image token."""
    planes = mask.reshape(1, 1, *mask.shape[-2:]).float()
    resized = functional.interpolate(planes, size=(rows, columns), mode="nearest")
    return (resized > 0.5).flatten()  # noqa: PLR2004 - a half
