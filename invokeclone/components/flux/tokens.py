"""Image tokens of FLUX.1 and FLUX.2: latents packed in squares of two, and the places of reference images."""

from collections.abc import Sequence

import torch
from torch.nn import functional

PACKING = 2
"""Latents per token along each side."""


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Return tokens (batch, rows · columns, channels · 4) of latents (batch, channels, 2 · rows, 2 · columns)."""
    batch, channels, height, width = latents.shape
    squares = latents.reshape(batch, channels, height // PACKING, PACKING, width // PACKING, PACKING)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PACKING * PACKING)


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return the latents (batch, channels, height, width) of tokens."""
    rows, columns = height // PACKING, width // PACKING
    squares = tokens.reshape(len(tokens), rows, columns, -1, PACKING, PACKING)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, height, width)


def pad_to_tokens(latents: torch.Tensor) -> torch.Tensor:
    """Return latents with even sides, padded by wrapping around."""
    down, right = latents.shape[-2] % PACKING, latents.shape[-1] % PACKING
    return functional.pad(latents, (0, right, 0, down), mode="circular") if down or right else latents


def place(sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the row and column, in tokens, of reference images with these heights and widths in latents.

    The first image is at the output's position; each further one is placed to the right of the area covered so far,
    or below it, whichever keeps the area closer to a square.
    """
    places: list[tuple[int, int]] = []
    covered_height = covered_width = 0
    for height, width in sizes:
        row = column = 0
        if places:
            if covered_height + height > covered_width + width:
                column = covered_width
            else:
                row = covered_height
        covered_height, covered_width = max(covered_height, row + height), max(covered_width, column + width)
        places.append((row // PACKING, column // PACKING))
    return places
