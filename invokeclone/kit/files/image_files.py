"""Opening image files: a fixed list of formats, and a size check before decoding.

Pillow supports some forty formats; each one that is not needed is only another decoder for a hostile file to reach.
Formats that run programs (EPS) or fetch files are excluded. `tests/kit/test_one_way.py` checks that no other module
calls Image.open.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from invokeclone.kit.files.png_texts import without_large_texts

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "PCX", "DDS")
"""Formats that users may send; JPEG's plugin also opens MPO (several JPEG images in one file)."""
STORED_FORMATS = ("PNG", "WEBP")
"""Formats of image files and thumbnails written by this server."""
PIXEL_LIMIT = 128 * 1024 * 1024


class TooManyPixelsDeclared(ValueError):
    """The image's header declares more pixels than the limit."""


def open_image(source: Path | IO[bytes], formats: Sequence[str] = FORMATS, *, limit: int = PIXEL_LIMIT) -> "Image":
    """Return the image in a file that a user sent, not decoded yet, without the texts that are too large to read.

    Raises TooManyPixelsDeclared, Pillow's DecompressionBombError, UnidentifiedImageError for other formats, and the
    errors of Pillow's header parsers for damaged files.
    """
    from PIL import Image, features  # keeps the startup of processes without images fast

    Image.MAX_IMAGE_PIXELS = max(
        limit, PIXEL_LIMIT
    )  # Pillow's own limit, which also applies to images embedded in images
    if isinstance(source, io.BytesIO):
        source = io.BytesIO(without_large_texts(source.getvalue()))
    usable = [name for name in formats if name != "AVIF" or features.check("avif")]
    image = Image.open(source, formats=usable)
    if image.width * image.height > limit:
        image.close()
        raise TooManyPixelsDeclared(f"{image.width}×{image.height} is over the limit of {limit} pixels")
    return image


def open_stored_image(source: Path | IO[bytes]) -> "Image":
    """Return an image that this server wrote, not decoded yet. Raises OSError."""
    from PIL import Image

    return Image.open(source, formats=STORED_FORMATS)
