"""Filling of holes with patches from the rest of an image, found by PatchMatch.

The search is Barnes et al., "PatchMatch: A Randomized Correspondence Algorithm for Structural Image Editing" (2009),
vectorized over all patches; between two searches each pixel becomes the mean of the patches over it, from coarse to
fine (Wexler et al., "Space-Time Completion of Video", 2007).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from invokeclone.nodes.images.pixels.infill import fill_smoothly

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Indices = NDArray[np.intp]

RADIUS = 2
SIDE = 2 * RADIUS + 1
MIN_SIDE = 24
"""Minimum length of the shorter side for further halving."""
ROUNDS = 2
"""Rounds of propagation and random search per search."""
COARSE_PASSES, FINE_PASSES = 6, 2
STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0), (0, 4), (4, 0), (0, -4), (-4, 0))


class _Match(NamedTuple):
    """Sources of the patches over a hole: rows and columns of their centers, and the squared differences."""

    rows: Indices
    columns: Indices
    cost: Floats


def fill_hole(colors: Bytes, hole: Flags, seed: int = 0) -> Bytes:
    """Return colors (height, width, 3) with those in `hole` (height, width) replaced by patches of the rest.

    If no whole patch is known, colors flow in from around.
    """
    if not hole.any() or hole.all():
        return colors
    rng = np.random.default_rng(seed)
    levels = [(colors.astype(np.float32), hole)]
    while min(levels[-1][1].shape) >= 2 * MIN_SIDE:
        levels.append(_downsample(*levels[-1]))
    image: Floats | None = None
    for number, (pixels, missing) in enumerate(reversed(levels)):
        ground = _initial_fill(pixels, missing) if image is None else _upsample(image, missing.shape)
        image = np.where(missing[..., None], ground, pixels)
        image = _complete(image, missing, COARSE_PASSES if number == 0 else FINE_PASSES, rng)
    assert image is not None
    return np.where(hole[..., None], np.clip(np.rint(image), 0, 255).astype(np.uint8), colors)


def _initial_fill(pixels: Floats, missing: Flags) -> Floats:
    share = (~missing).astype(np.float32)
    return fill_smoothly(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), share).astype(np.float32)


def _downsample(colors: Floats, hole: Flags) -> tuple[Floats, Flags]:
    """Merge each four pixels into the mean of the known ones; a pixel is missing when all four are unknown."""
    height, width = (side // 2 * 2 for side in hole.shape)
    weight = (~hole[:height, :width]).astype(np.float32)
    blocks = (colors[:height, :width] * weight[..., None]).reshape(height // 2, 2, width // 2, 2, 3).sum(axis=(1, 3))
    total = weight.reshape(height // 2, 2, width // 2, 2).sum(axis=(1, 3))
    return blocks / np.maximum(total, 1)[..., None], total == 0


def _upsample(image: Floats, shape: tuple[int, ...]) -> Floats:
    rows = np.minimum(np.arange(shape[0]) // 2, image.shape[0] - 1)
    columns = np.minimum(np.arange(shape[1]) // 2, image.shape[1] - 1)
    doubled: Floats = image[rows][:, columns]
    return doubled


def _dilate(flags: Flags) -> Flags:
    """Return where the patch around a pixel contains a flag; there are none outside the image."""
    padded = np.pad(flags, RADIUS)
    height, width = flags.shape
    result = np.zeros_like(flags)
    for row in range(SIDE):
        for column in range(SIDE):
            result |= padded[row : row + height, column : column + width]
    return result


def _complete(image: Floats, hole: Flags, passes: int, rng: np.random.Generator) -> Floats:
    """Return the image with its hole filled by `passes` rounds of search and voting."""
    sources = ~_dilate(hole)
    sources[:RADIUS] = sources[-RADIUS:] = False
    sources[:, :RADIUS] = sources[:, -RADIUS:] = False
    if not sources.any():
        return image
    rows, columns = np.nonzero(_dilate(hole))
    choice = rng.choice(np.flatnonzero(sources), len(rows))
    match = _Match(choice // hole.shape[1], choice % hole.shape[1], np.full(len(rows), np.inf, dtype=np.float32))
    for _ in range(passes):
        search = _Search(image, sources, rows, columns)
        match = search.improve(match, rng)
        image = np.where(hole[..., None], search.vote(match), image)
    return image


class _Search:
    """The patches around the targets (rows, columns), and the image they are compared with."""

    def __init__(self, image: Floats, sources: Flags, rows: Indices, columns: Indices) -> None:
        self._sources, self._rows, self._columns = sources, rows, columns
        self._height, self._width = sources.shape
        padded = np.pad(image, ((RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0)), mode="edge")
        self._stride = padded.shape[1]
        self._flat = padded.reshape(-1, 3)
        self._offsets = (np.arange(SIDE)[:, None] * self._stride + np.arange(SIDE)).ravel()
        self._targets = self._patches(rows, columns)
        self._number = np.full(sources.shape, -1, dtype=np.intp)
        self._number[rows, columns] = np.arange(len(rows))

    def _patches(self, rows: Indices, columns: Indices) -> Floats:
        patches: Floats = self._flat[(rows * self._stride + columns)[:, None] + self._offsets]
        return patches

    def improve(self, match: _Match, rng: np.random.Generator) -> _Match:
        """Return better matches: shifted matches of neighbors, and random ones around the present ones."""
        match = _Match(match.rows, match.columns, self._cost(match.rows, match.columns, np.arange(len(match.rows))))
        for _ in range(ROUNDS):
            for down, right in STEPS:
                match = self._better(match, *self._of_neighbors(match, down, right))
            radius = max(self._height, self._width)
            while radius >= 1:
                shift = rng.integers(-radius, radius + 1, size=(2, len(match.rows)))
                all_targets = np.arange(len(match.rows))
                match = self._better(match, all_targets, match.rows + shift[0], match.columns + shift[1])
                radius //= 2
        return match

    def _of_neighbors(self, match: _Match, down: int, right: int) -> tuple[Indices, Indices, Indices]:
        """Return the targets that have a neighbor at this offset, and the locations that its match implies for them."""
        rows, columns = self._rows - down, self._columns - right
        inside = (rows >= 0) & (rows < self._height) & (columns >= 0) & (columns < self._width)
        number = np.where(inside, self._number[rows % self._height, columns % self._width], -1)
        targets = np.flatnonzero(number >= 0)
        return targets, match.rows[number[targets]] + down, match.columns[number[targets]] + right

    def _better(self, match: _Match, targets: Indices, rows: Indices, columns: Indices) -> _Match:
        """Return the matches with the proposed ones of `targets` where they are valid and better."""
        usable = (rows >= 0) & (rows < self._height) & (columns >= 0) & (columns < self._width)
        usable[usable] = self._sources[rows[usable], columns[usable]]
        targets, rows, columns = targets[usable], rows[usable], columns[usable]
        cost = self._cost(rows, columns, targets)
        less = cost < match.cost[targets]
        result = _Match(match.rows.copy(), match.columns.copy(), match.cost.copy())
        result.rows[targets[less]] = rows[less]
        result.columns[targets[less]] = columns[less]
        result.cost[targets[less]] = cost[less]
        return result

    def _cost(self, rows: Indices, columns: Indices, targets: Indices) -> Floats:
        difference = self._patches(rows, columns) - self._targets[targets]
        cost: Floats = np.einsum("npc,npc->n", difference, difference)
        return cost

    def vote(self, match: _Match) -> Floats:
        """Return for each pixel the weighted mean of the patches over it; better matches have higher weights."""
        weights = 1 / (1 + match.cost / max(float(np.median(match.cost)), 1e-3))
        into = ((self._rows * self._stride + self._columns)[:, None] + self._offsets).ravel()
        spread = np.repeat(weights, SIDE * SIDE)
        size = len(self._flat)
        total = np.maximum(np.bincount(into, spread, size), 1e-12)
        colors = self._patches(match.rows, match.columns).reshape(-1, 3)
        bands = [np.bincount(into, spread * colors[:, band], size) / total for band in range(3)]
        whole = np.stack(bands, axis=-1).reshape(-1, self._stride, 3).astype(np.float32)
        return whole[RADIUS:-RADIUS, RADIUS:-RADIUS]
