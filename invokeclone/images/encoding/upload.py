"""What happens to an upload before it is kept: decode, crop, resize, and pick out the embedded texts; all of it blocking.

It knows bytes and pictures, and refuses to know where they go.
"""

import io
import json
import struct
import zlib
from typing import NamedTuple

from PIL import Image
from pydantic import BaseModel, PositiveInt, ValidationError

from invokeclone.images.encoding import embedded_metadata, png
from invokeclone.images.errors import InvalidSize, NotAnImage, NothingVisible, TooManyPixels
from invokeclone.kit.config.limits import DEFAULT_LIMITS, Limits
from invokeclone.kit.errors import TooLarge
from invokeclone.kit.files.image_files import TooManyPixelsDeclared, open_image
from invokeclone.kit.json_text import NotStorable, decode_text

MIN_SEGMENT_COLORS = 3
MAX_SEGMENT_COLORS = 199
MID_GRAY = 127

DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise on damaged data."""


class _Size(BaseModel, strict=True):
    width: PositiveInt
    height: PositiveInt


class PreparedUpload(NamedTuple):
    """An upload that is ready to be written."""

    image: Image.Image
    png: bytes
    texts: dict[str, str]


def prepare(
    data: bytes,
    *,
    crop_visible: bool,
    resize_to: str | None,
    metadata: str | None,
    level: int,
    limits: Limits = DEFAULT_LIMITS,
) -> PreparedUpload:
    """Turn uploaded bytes into a PNG with the texts worth keeping.

    Raises NotAnImage, TooManyPixels, NothingVisible, SizeNotUsable, or NotStorable for the metadata, in this order of checks.
    """
    original = decode(data, limits)
    image = crop_to_visible(original) if crop_visible else original
    if resize_to is not None:
        image = resize(image, *parse_size(resize_to, limits))
    texts = embedded_metadata.valid_texts(png.texts_of(original), metadata, limits)
    copy = png.copy_with_texts(data, texts) if image is original else None
    return PreparedUpload(image, copy or png.encode(image, level, texts), texts)


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """Return the picture in `data`, wholly read; the size is looked at before any pixel is decoded."""
    try:
        image = open_image(io.BytesIO(data), limit=limits.image_pixels)
    except (TooManyPixelsDeclared, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixels(f"the picture is too large: {error} (setting limits.image_pixels)") from error
    except DECODE_ERRORS as error:
        raise NotAnImage("not a picture of a known format") from error
    if max(image.size) > limits.image_side:
        raise TooManyPixels(
            f"{image.width}×{image.height} is over the limit of {limits.image_side} pixels a side (setting limits.image_side)"
        )
    try:
        image.load()
    except DECODE_ERRORS as error:
        raise NotAnImage(f"the picture is damaged: {error}") from error
    return image


def crop_to_visible(image: Image.Image) -> Image.Image:
    """Return the smallest part that holds all that is visible; without transparency, all that is not black."""
    visible = image.convert("RGBA") if image.has_transparency_data and image.mode != "RGBA" else image
    box = visible.getbbox()
    if box is None:
        raise NothingVisible("nothing in the picture is visible")
    return image if box == (0, 0, *image.size) else visible.crop(box)


def parse_size(text: str, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Read `{"width": …, "height": …}`; raises SizeNotUsable."""
    try:
        size = _Size.model_validate(decode_text(text, limits))
    except (ValidationError, json.JSONDecodeError, NotStorable, TooLarge) as error:
        raise InvalidSize('resize_to must be a JSON object with "width" and "height" above 0') from error
    if size.width * size.height > limits.target_pixels or max(size.width, size.height) > limits.image_side:
        raise InvalidSize(
            f"resize_to is over the limit of {limits.target_pixels} pixels, {limits.image_side} a side "
            "(settings limits.target_pixels, limits.image_side)"
        )
    return size.width, size.height


def resize(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return `image` as RGBA of the given size, without inventing colours where they have a meaning.

    Segmentation maps (a few flat colours) keep exactly their colours, drawings in two tones keep two; anything else is
    averaged when it shrinks and interpolated when it grows.
    """
    source = image.convert("RGBA")
    if source.size == (width, height):
        return source
    color_count = _count_colors(source)
    if MIN_SEGMENT_COLORS <= color_count <= MAX_SEGMENT_COLORS:
        return source.resize((width, height), Image.Resampling.NEAREST)
    shrinks = width * height < source.width * source.height
    smooth = source.resize((width, height), Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC)
    return _restore_two_tones(source, smooth) if color_count == 2 else smooth  # noqa: PLR2004


def _count_colors(image: Image.Image) -> int:
    """Count the colours, alpha aside; one more than matters stands for any larger number."""
    colors = image.convert("RGB").getcolors(MAX_SEGMENT_COLORS)
    return MAX_SEGMENT_COLORS + 1 if colors is None else len(colors)


def _restore_two_tones(source: Image.Image, smooth: Image.Image) -> Image.Image:
    """Bring `smooth` back to black and white if that is what `source` was; the alpha stays smooth."""
    colors = {color for _, color in source.convert("RGB").getcolors(2) or []}
    if colors != {(0, 0, 0), (255, 255, 255)}:
        return smooth
    tones = smooth.convert("RGB").point(lambda value: 255 if value > MID_GRAY else 0)
    tones.putalpha(smooth.getchannel("A"))
    return tones
