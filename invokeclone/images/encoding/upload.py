"""Processing of uploaded images: decode, crop, resize, and extract the embedded texts. Every function blocks."""

import io
import json
import struct
import zlib
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from pydantic import BaseModel, PositiveInt, ValidationError

from invokeclone.images.encoding import embedded_metadata, png
from invokeclone.images.errors import InvalidSize, NotAnImage, NothingVisible, TooManyPixels
from invokeclone.kit.config.limits import DEFAULT_LIMITS, Limits
from invokeclone.kit.errors import TooLarge
from invokeclone.kit.files import image_modes
from invokeclone.kit.files.image_files import FORMATS, TooManyPixelsDeclared, open_image
from invokeclone.kit.files.image_modes import convert
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
"""Errors that Pillow's decoders raise on damaged data."""


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
    """Convert uploaded bytes to a PNG with its valid texts.

    Raises NotAnImage, TooManyPixels, NothingVisible, InvalidSize, or NotStorable for the metadata, in this order of
    checks.
    """
    original = decode(data, limits)
    image = crop_to_visible(original) if crop_visible else original
    if resize_to is not None:
        image = resize(image, *parse_size(resize_to, limits))
    texts = embedded_metadata.valid_texts(png.texts_of(original), metadata, limits)
    turned = image_modes.orientation(original)
    if turned != 1:  # pixels stay as they are; thumbnails and nodes show them upright
        image.info[image_modes.ORIENTATION] = str(turned)
        texts[image_modes.ORIENTATION] = str(turned)
    copy = png.copy_with_texts(data, texts) if image is original and isinstance(image, PngImageFile) else None
    return PreparedUpload(image, copy or png.encode(image, level, texts), texts)


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """Return the fully decoded image in `data`, in the colors of sRGB; its size is checked before any pixel is decoded.

    Animations are their first image. The image is not rotated.
    """
    try:
        image = open_image(io.BytesIO(data), limit=limits.image_pixels)
    except (TooManyPixelsDeclared, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixels(f"the image is too large: {error} (setting limits.image_pixels)") from error
    except UnidentifiedImageError as error:
        raise NotAnImage(f"not an image in a supported format ({', '.join(FORMATS)})") from error
    except DECODE_ERRORS as error:
        raise NotAnImage(f"the image is damaged: {error}") from error
    if max(image.size) > limits.image_side:
        raise TooManyPixels(
            f"{image.width}×{image.height} is over the limit of {limits.image_side} pixels per side (setting limits.image_side)"
        )
    try:
        image.load()
    except DECODE_ERRORS as error:
        raise NotAnImage(f"the image is damaged: {error}") from error
    return image_modes.apply_profile(image)


def crop_to_visible(image: Image.Image) -> Image.Image:
    """Crop to the smallest box with all visible pixels; without transparency, with all pixels that are not black."""
    visible = convert(image, "RGBA") if image.has_transparency_data and image.mode != "RGBA" else image
    box = visible.getbbox()
    if box is None:
        raise NothingVisible("the image has no visible pixels")
    return image if box == (0, 0, *image.size) else visible.crop(box)


def parse_size(text: str, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Parse `{"width": …, "height": …}`; raises InvalidSize."""
    try:
        size = _Size.model_validate(decode_text(text, limits))
    except (ValidationError, json.JSONDecodeError, NotStorable, TooLarge) as error:
        raise InvalidSize('resize_to must be a JSON object with "width" and "height" above 0') from error
    if size.width * size.height > limits.target_pixels or max(size.width, size.height) > limits.image_side:
        raise InvalidSize(
            f"resize_to is over the limit of {limits.target_pixels} pixels, {limits.image_side} per side "
            "(settings limits.target_pixels, limits.image_side)"
        )
    return size.width, size.height


def resize(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return `image` as RGBA of the given size, without new colors where colors carry meaning.

    Segmentation maps (a few flat colors) keep exactly their colors, black-and-white images stay black and white; all
    others are averaged (box filter) when they shrink and interpolated (bicubic) when they grow.
    """
    source = convert(image, "RGBA")
    if source.size == (width, height):
        return source
    color_count = _count_colors(source)
    if MIN_SEGMENT_COLORS <= color_count <= MAX_SEGMENT_COLORS:
        return source.resize((width, height), Image.Resampling.NEAREST)
    shrinks = width * height < source.width * source.height
    smooth = source.resize((width, height), Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC)
    return _restore_two_tones(source, smooth) if color_count == 2 else smooth  # noqa: PLR2004


def _count_colors(image: Image.Image) -> int:
    """Return the number of colors without alpha, at most `MAX_SEGMENT_COLORS` + 1."""
    colors = convert(image, "RGB").getcolors(MAX_SEGMENT_COLORS)
    return MAX_SEGMENT_COLORS + 1 if colors is None else len(colors)


def _restore_two_tones(source: Image.Image, smooth: Image.Image) -> Image.Image:
    """Threshold `smooth` to black and white if `source` was; the alpha channel stays smooth."""
    colors = {color for _, color in convert(source, "RGB").getcolors(2) or []}
    if colors != {(0, 0, 0), (255, 255, 255)}:
        return smooth
    tones = convert(smooth, "RGB").point(lambda value: 255 if value > MID_GRAY else 0)
    tones.putalpha(smooth.getchannel("A"))
    return tones
