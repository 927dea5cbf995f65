"""Evaluation of an image without a network: its colors, its silhouette, the positions of two colors.

An image is an (h, w, 3) array of floats from 0 to 255. Silhouettes are compared with the drawn ones by intersection
over union after both are cropped to their bounding boxes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

from .drawing import draw
from .figures import COLOURS, SHAPES, Picture, Thing

SIDE = 48  # pixels to which silhouettes are scaled for comparison
FAINT = 0.5  # fraction of the distance from background to object color from which a pixel counts as object
NAMES = tuple(COLOURS)
PALETTE = np.array([COLOURS[name] for name in NAMES], np.float32)


def nearest_colour(rgb: np.ndarray) -> str:
    """Return the name of the color nearest to (3,) in RGB."""
    return NAMES[int(np.square(PALETTE - rgb).sum(1).argmin())]


def background_colour(picture: np.ndarray) -> np.ndarray:
    """Return the (3,) median color of a frame of one sixteenth of the side."""
    edge = max(1, picture.shape[0] // 16)
    frame = [picture[:edge], picture[-edge:], picture[:, :edge].swapaxes(0, 1), picture[:, -edge:].swapaxes(0, 1)]
    return np.median(np.concatenate([part.reshape(-1, 3) for part in frame]), axis=0)


def object_colour(picture: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Return the (3,) median color of pixels that clearly differ from the background, else the background."""
    distance = np.linalg.norm(picture - background, axis=-1)
    clear = distance > max(40.0, 0.6 * float(np.percentile(distance, 98)))
    return np.median(picture[clear], axis=0) if clear.any() else background


def silhouette(picture: np.ndarray, background: np.ndarray, tint: np.ndarray | None = None) -> np.ndarray:
    """Return the (h, w) mask, 0 to 1, of non-background pixels, or of one color if ``tint`` is given."""
    if tint is None:
        return np.clip((np.linalg.norm(picture - background, axis=-1) - 16) / 48, 0, 1)
    way = tint - background
    return np.clip((picture - background) @ way / max(1.0, float(way @ way)), 0, 1)


def crop_to_box(mask: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Crop a mask to its bounding box; return it at 48 x 48 with the box's aspect ratio, or None if empty."""
    min_extent = 0.012 * mask.shape[0]
    rows = np.flatnonzero((mask > FAINT).sum(1) >= min_extent)
    columns = np.flatnonzero((mask > FAINT).sum(0) >= min_extent)
    if len(rows) < 3 or len(columns) < 3:
        return None
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scaled = Image.fromarray((cut * 255).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(scaled, np.float32) / 255, cut.shape[1] / cut.shape[0]


@lru_cache
def templates(kinds: tuple[str, ...]) -> tuple[tuple[str, np.ndarray, float], ...]:
    """Draw every kind's silhouette, cropped to its box: (kind, (48, 48) mask, width over height)."""
    silhouettes = []
    for kind in kinds:
        thing = Thing(kind, "green", 0.5, 0.5, 0.36, COLOURS["green"])
        # On a color that no part of any figure has.
        drawn = np.asarray(draw(Picture("plain", "", (255, 0, 255), (thing,)), 128), np.float32)
        box = crop_to_box(silhouette(drawn, drawn[0, 0]))
        assert box is not None  # a drawn object is never empty
        silhouettes.append((kind, *box))
    return tuple(silhouettes)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the soft intersection over union of two masks of one size."""
    return float(np.minimum(first, second).sum() / max(1e-6, np.maximum(first, second).sum()))


def recognise(mask: np.ndarray, kinds: tuple[str, ...] = SHAPES) -> tuple[str, float]:
    """Return the kind with the best matching silhouette, and its IoU (0 to 1); ("", 0) for an empty mask."""
    box = crop_to_box(mask)
    if box is None:
        return "", 0.0
    cut, aspect = box
    scores = [(overlap(cut, shape), abs(np.log(aspect / ratio)), kind) for kind, shape, ratio in templates(kinds)]
    fit, _, kind = max(scores, key=lambda entry: entry[0] - 0.5 * entry[1])
    return kind, fit


def colour_place(picture: np.ndarray, colour: str, background: str) -> tuple[float, float] | None:
    """Return the center (x, y), 0 to 1, of a named color's pixels, or None if they are too few to be an object."""
    flat = picture.reshape(-1, 3)
    named = np.square(flat[:, None] - PALETTE).sum(-1).argmin(1)
    color_mask = (named == NAMES.index(colour)).reshape(picture.shape[:2])
    if colour == background or color_mask.mean() < 0.015:
        return None
    rows, columns = np.nonzero(color_mask)
    return float(np.median(columns)) / picture.shape[1], float(np.median(rows)) / picture.shape[0]
