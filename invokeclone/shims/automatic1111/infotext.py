"""Formats and parses A1111's infotext, which images embed: the prompt, the negative prompt and a line of settings."""

import io
import json
import re
from collections.abc import Mapping
from typing import Any

from PIL import Image

from invokeclone.images.encoding import png
from invokeclone.images.encoding import upload as upload_files
from invokeclone.images.encoding.png import METADATA
from invokeclone.kit.config.limits import DEFAULT_LIMITS, Limits
from invokeclone.kit.errors import TooLarge
from invokeclone.kit.files.image_files import open_stored_image
from invokeclone.kit.json_text import NotStorable, decode_text
from invokeclone.shims.image_io import DEFAULT_QUALITY, Format, flatten

PARAMETERS = "parameters"
"""Keyword of the PNG text chunk."""
_EXIF_PART = 0x8769
_USER_COMMENT = 0x9286
_UNICODE = b"UNICODE\0"
_ASCII = b"ASCII\0\0\0"
_NEGATIVE = "Negative prompt:"
_PAIR = re.compile(r'(\w[\w \-/]{0,99}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
"""A setting. The length of its name is bounded, so that a long line is parsed in linear time."""
_SIZE = re.compile(r"(\d+)x(\d+)")
_MIN_PAIRS = 3
"""Number of pairs from which the last line counts as settings."""
_MAX_LINE_LENGTH = 10_000


def format_infotext(prompt: str, negative: str, settings: Mapping[str, Any]) -> str:
    """Return the infotext; settings that are None are left out."""
    line = ", ".join(f"{name}: {_quote(value)}" for name, value in settings.items() if value is not None)
    return "\n".join([prompt, *([f"{_NEGATIVE} {negative}"] if negative else []), line]).strip()


def _quote(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if any(character in text for character in ',:\n"') else text


def parse(text: str) -> dict[str, str]:
    """Return prompt, negative prompt and settings of an infotext; a size becomes two numbers, as in A1111."""
    *lines, last = text.strip().split("\n")
    pairs = _PAIR.findall(last) if len(last) <= _MAX_LINE_LENGTH else []
    if len(pairs) < _MIN_PAIRS:
        lines, pairs = [*lines, last], []
    prompt, separator, negative = "\n".join(lines).partition(_NEGATIVE)
    result = {"Prompt": prompt.strip(), "Negative prompt": negative.strip() if separator else ""}
    for name, value in pairs:
        plain = _unquote(value.strip())
        if size := _SIZE.fullmatch(plain):
            result |= {f"{name}-1": size[1], f"{name}-2": size[2]}
        else:
            result[name] = plain
    return result


def _unquote(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(decode_text(value, DEFAULT_LIMITS))
    except (ValueError, NotStorable, TooLarge):
        return value


# In files (blocking)


def embed_infotext(data: bytes, format: Format, text: str) -> bytes:  # noqa: A002  (the API's name)
    """Return the image of a stored file with the infotext embedded; a PNG keeps its other texts."""
    with open_stored_image(io.BytesIO(data)) as image:
        if format == "png":
            texts = {PARAMETERS: text, **png.texts_of(image)}
            return png.copy_with_texts(data, texts) or png.encode(image, png.FAST_LEVEL, texts)
        exif = Image.Exif()
        exif.get_ifd(_EXIF_PART)[_USER_COMMENT] = _UNICODE + text.encode("utf-16-be", "replace")
        buffer = io.BytesIO()
        flatten(image).save(buffer, format.upper(), quality=DEFAULT_QUALITY, exif=exif)
        return buffer.getvalue()


def read_infotext(data: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[str, dict[str, Any]]:
    """Return the infotext of an image ("" without one) and its other texts; raises what `upload_files.decode` raises."""
    image = upload_files.decode(data, limits)
    items = {name: value for name, value in image.info.items() if isinstance(name, str) and isinstance(value, str)}
    text = items.pop(PARAMETERS, None) or _comment(image)
    other_texts = {
        name: value for name, value in items.items() if name in {METADATA, png.WORKFLOW, png.GRAPH, "Comment"}
    }
    return text, other_texts


def _comment(image: Image.Image) -> str:
    """Return the user comment in an image's EXIF data."""
    try:
        comment = image.getexif().get_ifd(_EXIF_PART).get(_USER_COMMENT, b"")
    except upload_files.DECODE_ERRORS:
        return ""
    if not isinstance(comment, bytes):
        return str(comment)
    if comment.startswith(_UNICODE):
        return comment.removeprefix(_UNICODE).decode("utf-16-be", "replace").strip("\0")
    return comment.removeprefix(_ASCII).decode("utf-8", "replace").strip("\0")
