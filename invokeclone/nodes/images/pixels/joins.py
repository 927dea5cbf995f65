"""Merging of overlapping images: along the center of the overlap, or along the path of least difference."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Piece:
    """An image (height, width, channels) and its position."""

    left: int
    top: int
    pixels: Floats


def path(difference: Floats) -> NDArray[np.intp]:
    """Return a column per row, from top to bottom in steps of at most one, with the least sum of differences."""
    height, width = difference.shape
    total = difference.astype(np.float64)
    for row in range(1, height):
        above = np.pad(total[row - 1], 1, constant_values=np.inf)
        total[row] += np.minimum(np.minimum(above[:-2], above[1:-1]), above[2:])
    columns = np.empty(height, dtype=np.intp)
    columns[-1] = total[-1].argmin()
    for row in range(height - 2, -1, -1):
        first = max(0, int(columns[row + 1]) - 1)
        columns[row] = first + total[row, first : min(width, int(columns[row + 1]) + 2)].argmin()
    return columns


def join(before: Floats, after: Floats, blend: int, *, seam: bool) -> Floats:
    """Return two images of the same area as one, with a transition from left to right over `blend` pixels."""
    height, width = before.shape[:2]
    blend = min(blend, width)
    middle: NDArray[Any] = np.full(height, width / 2)
    if seam:
        middle = path(np.abs(before - after).sum(axis=-1)) + 0.5
    middle = np.clip(middle, blend / 2, width - blend / 2)[:, None]
    columns = np.arange(width)[None] + 0.5
    share = (columns > middle).astype(np.float32) if blend == 0 else np.clip((columns - middle) / blend + 0.5, 0.0, 1.0)
    return (before + (after - before) * share[..., None]).astype(np.float32)


def join_row(pieces: list[Piece], blend: int, *, seam: bool) -> Piece:
    """Merge pieces of equal height from left to right; gaps are 0."""
    pieces = sorted(pieces, key=lambda piece: piece.left)
    first, last = pieces[0], max(piece.left + piece.pixels.shape[1] for piece in pieces)
    height, _, channels = first.pixels.shape
    whole = np.zeros((height, last - first.left, channels), dtype=np.float32)
    filled = 0
    for piece in pieces:
        start = piece.left - first.left
        end = start + piece.pixels.shape[1]
        shared = min(filled, end)
        if start < shared:
            part = piece.pixels[:, : shared - start]
            whole[:, start:shared] = join(whole[:, start:shared], part, blend, seam=seam)
        if shared < end:
            begin = max(start, shared)
            whole[:, begin:end] = piece.pixels[:, begin - start :]
        filled = max(filled, end)
    return Piece(first.left, first.top, whole)


def transpose(piece: Piece) -> Piece:
    """Swap rows and columns."""
    return Piece(piece.top, piece.left, np.ascontiguousarray(piece.pixels.swapaxes(0, 1)))


def merge(pieces: list[Piece], blend: int, *, seam: bool) -> Floats:
    """Return all pieces as one image with origin (0, 0), merging each row and then the rows.

    Raises ValueError when pieces at the same vertical position differ in height.
    """
    rows: dict[int, list[Piece]] = {}
    for piece in pieces:
        rows.setdefault(piece.top, []).append(piece)
    if any(len({piece.pixels.shape[0] for piece in row}) > 1 for row in rows.values()):
        raise ValueError("tiles of one row must have the same height")
    width = max(piece.left + piece.pixels.shape[1] for piece in pieces)
    bands = []
    for row in rows.values():
        band = join_row(row, blend, seam=seam)
        right = width - band.left - band.pixels.shape[1]
        bands.append(transpose(Piece(0, band.top, np.pad(band.pixels, ((0, 0), (band.left, right), (0, 0))))))
    column = transpose(join_row(bands, blend, seam=seam))
    return np.pad(column.pixels, ((column.top, 0), (0, 0), (0, 0)))
