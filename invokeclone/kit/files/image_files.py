"""The one place where image files are opened: named formats only, and sizes checked before a pixel is decoded.

Pillow knows some forty formats; one that nobody needs here is only another decoder that a hostile file can reach. Formats that
run programs (EPS) or fetch things are not among them. `tests/kit/test_one_way.py` finds places that call Image.open themselves.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "JPEG2000")
"""Formats of images that users send; MPO, several JPEG images in one file, is opened by JPEG's opener."""
STORED_FORMATS = ("PNG", "WEBP")
"""Formats of image files and thumbnails that this server wrote."""
PIXEL_LIMIT = 128 * 1024 * 1024


class TooManyPixelsDeclared(ValueError):
    """The image's header declares more pixels than are decoded."""


def open_image(source: Path | IO[bytes], formats: Sequence[str] = FORMATS, *, limit: int = PIXEL_LIMIT) -> "Image":
    """Return the image in a file that a user sent, not decoded yet.

    Raises TooManyPixelsDeclared, Pillow's DecompressionBombError, UnidentifiedImageError for other formats, and what Pillow's
    readers of headers raise on damaged files.
    """
    from PIL import Image, features  # who needs no image starts without it

    Image.MAX_IMAGE_PIXELS = max(
        limit, PIXEL_LIMIT
    )  # Pillow's own bound, which also counts for images inside of images
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
