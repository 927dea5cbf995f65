"""Content-aware resizing of control images: keeps lines thin, binary images binary, and flat colors free of new colors.

The interpolations reproduce OpenCV's (modules/imgproc/src/resize.cpp), because images made elsewhere depend on them;
bicubic as in its x86 builds, with unrounded weights.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from invokeclone.graph.checkpoints import checkpoint

Bytes = NDArray[np.uint8]
Method = Literal["nearest", "area", "cubic"]

FLAT_COLORS = 200
"""An image with fewer colors than this is a map of flat colors."""
SAMPLE = 100_000
"""Number of pixels sampled to count the colors."""
DARK, LIGHT = 16, 240
"""An image of two colors is black and white when it has values below and above these."""
_HALF = 127
_CUBIC = -0.75
"""OpenCV's parameter of the bicubic kernel."""
_NEIGHBORHOOD = np.ones((3, 3), dtype=bool)
_LINES = (
    np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0]], dtype=bool),
    np.array([[0, 1, 0], [0, 1, 0], [0, 1, 0]], dtype=bool),
    np.eye(3, dtype=bool),
    np.eye(3, dtype=bool)[::-1],
)


def heuristic_resize(pixels: Bytes, size: tuple[int, int]) -> Bytes:
    """Return an image (height, width, 3 or 4) resized to `size` (width, height), by a method chosen from its colors.

    Photographs are interpolated, maps of flat colors use the nearest pixel, black-and-white images stay black and
    white, and drawings of lines one pixel wide are thinned to one pixel again. The fourth channel, transparency,
    becomes 0 or 255.
    """
    height, width = pixels.shape[:2]
    if size == (width, height):
        return pixels
    colors, alpha = pixels[..., :3], pixels[..., 3:]
    sample = _sample(colors)
    count = len(np.unique(sample, axis=0))
    smaller = size[0] * size[1] < width * height
    method: Method = "nearest" if 2 < count < FLAT_COLORS else "area" if smaller else "cubic"  # noqa: PLR2004 - two: black and white
    resized = interpolate(colors, size, method)
    if count == 2 and sample.min() < DARK and sample.max() > LIGHT:  # noqa: PLR2004
        resized = _black_and_white(resized, thin=_has_thin_lines(colors))
    if alpha.shape[-1]:
        opaque = np.where(interpolate(alpha, size, method) > _HALF, np.uint8(255), np.uint8(0))
        resized = np.concatenate([resized, opaque], axis=-1)
    return resized


def _sample(colors: Bytes) -> Bytes:
    """Return the corners and up to SAMPLE pixels drawn with a fixed seed, (pixels, channels)."""
    pixels = colors.reshape(-1, colors.shape[-1])
    if len(pixels) <= SAMPLE:
        return pixels
    drawn = np.random.default_rng(0).choice(len(pixels), SAMPLE, replace=False)
    return np.concatenate([colors[[0, 0, -1, -1], [0, -1, 0, -1]], pixels[drawn]])


def _has_thin_lines(colors: Bytes) -> bool:
    """Return whether the number of pixels on black-white edges is more than half that of white ones."""
    gray = colors.max(axis=-1)
    largest = ndimage.maximum_filter(gray, footprint=_NEIGHBORHOOD, mode="constant", cval=0)
    smallest = ndimage.minimum_filter(gray, footprint=_NEIGHBORHOOD, mode="constant", cval=255)
    white = int((gray > _HALF).sum())
    return 2 * int((largest != smallest).sum()) > white


def _black_and_white(colors: Bytes, *, thin: bool) -> Bytes:
    """Return an interpolated image made binary: ridges, then Otsu's threshold, then thinning if `thin`."""
    red, green, blue = (colors[..., channel].astype(np.int32) for channel in range(3))
    gray = ((red * 3735 + green * 19235 + blue * 9798 + (1 << 14)) >> 15).astype(np.uint8)  # OpenCV's BGR weights
    ridges = np.zeros_like(gray)
    for line in _LINES:
        largest = ndimage.maximum_filter(gray, footprint=line, mode="constant", cval=0)
        np.copyto(ridges, gray, where=largest == gray)
    white = ridges > _otsu(ridges)
    if thin:
        white = thin_lines(white)
    return np.repeat(np.where(white, np.uint8(255), np.uint8(0))[..., None], 3, axis=-1)


def _otsu(gray: Bytes) -> int:
    """Return the threshold that best separates the values of a grayscale image (Otsu, 1979)."""
    values = np.arange(256)
    share = np.bincount(gray.ravel(), minlength=256) / gray.size
    below = np.cumsum(share)
    above = 1.0 - below
    mean = np.cumsum(share * values)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (mean[-1] * below - mean) ** 2 / (below * above)
    is_valid = (np.minimum(below, above) > np.finfo(np.float32).eps) & np.isfinite(variance)
    return int(np.argmax(np.where(is_valid, variance, 0.0)))


def thin_lines(lines: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return lines (height, width) thinned to one pixel by alternating erosion from both sides (Zhang and Suen, 1984).

    Pixels at the image's border stay.
    """
    lines = lines.copy()
    while True:
        checkpoint()
        worn = _erode_edges(lines, (0, 2, 4), (2, 4, 6)) | _erode_edges(lines, (0, 2, 6), (0, 4, 6))
        if not worn:
            return lines


def _erode_edges(lines: NDArray[np.bool_], *sides: tuple[int, int, int]) -> bool:
    """Remove edge pixels that connect nothing and have an empty neighbor on each of `sides`.

    Return whether any were removed. Neighbors are numbered clockwise from the one above, 0 to 7.
    """
    height, width = lines.shape
    wide = np.pad(lines, 1).astype(np.int8)
    offsets = ((0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0), (0, 0))
    neighbors = [wide[top : top + height, left : left + width] for top, left in offsets]
    count = sum(neighbors)
    transitions = sum(
        (current == 0) & (following == 1)
        for current, following in zip(neighbors, [*neighbors[1:], neighbors[0]], strict=True)
    )
    loose = lines & (count >= 2) & (count <= 6) & (transitions == 1)  # noqa: PLR2004 - neither an end nor inside
    for side in sides:
        loose &= np.minimum.reduce([neighbors[offset] for offset in side]) == 0
    loose[[0, -1]] = loose[:, [0, -1]] = False
    lines[loose] = False
    return bool(loose.any())


def interpolate(pixels: Bytes, size: tuple[int, int], method: Method) -> Bytes:
    """Return an image (height, width, channels) resized to `size` (width, height) as OpenCV does for bytes."""
    height, width, channels = pixels.shape
    columns, rows = size
    if method == "nearest":
        return pixels[_nearest(height, rows)][:, _nearest(width, columns)]
    scales = height / rows, width / columns
    if method == "area" and min(scales) >= 1:
        down, across = _area(height, rows), _area(width, columns)
    else:
        taps = _cubic if method == "cubic" else _linear
        down, across = taps(height, rows), taps(width, columns)
    narrow = across @ pixels.transpose(1, 0, 2).reshape(width, -1).astype(np.float64)
    narrow = narrow.reshape(columns, height, channels).transpose(1, 0, 2).reshape(height, -1)
    values = np.asarray(down @ narrow).reshape(rows, columns, channels)
    halves_up = method == "cubic" or scales == (2.0, 2.0)
    rounded = np.floor(values + 0.5) if halves_up else np.rint(values)
    return np.clip(rounded, 0, 255).astype(np.uint8)


def _scale(old: int, new: int) -> float:
    """Return the number of old pixels per new one, rounded as in OpenCV, which decides which pixel is used at edges."""
    return 1.0 / (new / old)


def _nearest(old: int, new: int) -> NDArray[np.int64]:
    return np.asarray(np.minimum(np.floor(np.arange(new) * _scale(old, new)), old - 1), dtype=np.int64)


def _matrix(weights: NDArray[Any], indices: NDArray[Any], old: int) -> Any:
    """Return a sparse matrix (new, old) with `weights` (new, taps) at `indices`.

    Out-of-range indices are clamped to the border.
    """
    new, taps = weights.shape
    rows = np.repeat(np.arange(new), taps)
    columns = np.clip(indices, 0, old - 1).ravel()
    return sparse.csr_array((weights.ravel(), (rows, columns)), shape=(new, old))


def _cubic(old: int, new: int) -> Any:
    """Return the weights of bicubic interpolation along one axis."""
    middle = ((np.arange(new) + 0.5) * _scale(old, new) - 0.5).astype(np.float32)
    first = np.floor(middle)
    x = (middle - first)[:, None]
    a = np.float32(_CUBIC)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a
    y = 1 - x
    next_near = ((a + 2) * y - (a + 3)) * y * y + 1
    weights = np.concatenate([far, near, next_near, 1 - far - near - next_near], axis=1)
    return _matrix(weights, first.astype(np.int64)[:, None] + np.arange(-1, 3), old)


def _linear(old: int, new: int) -> Any:
    """Return the weights that OpenCV uses for `area` when one of the sides grows."""
    first = np.floor(np.arange(new) * _scale(old, new))
    part = ((np.arange(new) + 1) - (first + 1) * (new / old)).astype(np.float32)
    part = np.where(part <= 0, np.float32(0), part - np.floor(part))
    weights = np.stack([1 - part, part], axis=1)
    return _matrix(weights, first.astype(np.int64)[:, None] + np.arange(2), old)


def _area(old: int, new: int) -> Any:
    """Return the share of each old pixel in each new one along one axis."""
    scale = _scale(old, new)
    edges = np.arange(new + 1) * scale
    taps = int(np.ceil(scale)) + 1
    indices = np.floor(edges[:-1]).astype(np.int64)[:, None] + np.arange(taps)
    begin = np.maximum(indices, edges[:-1, None])
    end = np.minimum(np.minimum(indices + 1, edges[1:, None]), old)
    return _matrix(np.maximum(end - begin, 0.0) / scale, indices, old)
