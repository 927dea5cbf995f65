"""Image input (base64, data URLs, uploads) and output (PNG, JPEG, WebP): decoding, resizing, storing and encoding.

Input is decoded by the same function as uploads. URLs are never fetched. Does not depend on any one compatibility API.
"""

import base64
import binascii
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from PIL import Image, ImageOps

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import service
from invokeclone.images.encoding import png
from invokeclone.images.encoding import upload as upload_files
from invokeclone.images.errors import NotAnImage, TooManyPixels
from invokeclone.images.image_work import image_work, process
from invokeclone.kit.config.limits import DEFAULT_LIMITS, MIB, Limits
from invokeclone.kit.files.image_files import open_image, open_stored_image
from invokeclone.kit.files.image_modes import convert, orientation, upright
from invokeclone.kit.resources import Resources
from invokeclone.shims.compat_api import RequestRejected
from invokeclone.users.current import User

Format = Literal["png", "jpeg", "webp"]
SLICE_CHARACTERS = 2**20
"""Characters of base64 that are decoded at a time."""
MIME: dict[Format, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
DEFAULT_QUALITY = 90


# Input


def decode_base64(text: str, param: str, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Return the bytes of base64 or a data URL. Raises RequestRejected for invalid or too large data and for URLs."""
    text = text.strip()
    if text[:8].lower().startswith(("http:", "https:", "file:", "ftp:")):
        raise RequestRejected("images must be sent as base64; URLs are not fetched", param)
    if text[:5].lower() == "data:":
        text = text.partition(",")[2]
    if len(text) > limits.image_file_mib * MIB * 4 // 3 + 4:
        raise _too_large(param, limits)
    try:
        data = _decode_in_slices(text)
    except (binascii.Error, ValueError) as error:
        raise RequestRejected("not valid base64", param) from error
    check_size(len(data), param, limits)
    if not data:
        raise RequestRejected("the image is empty", param)
    return data


def _decode_in_slices(text: str) -> bytes:
    """Decode base64 in slices, so that other threads can run in between; the alphabet and padding may be URL-safe.

    Raises binascii.Error and ValueError.
    """
    chunks, rest = [], ""
    for start in range(0, len(text), SLICE_CHARACTERS):
        rest += "".join(text[start : start + SLICE_CHARACTERS].split()).replace("-", "+").replace("_", "/")
        end = max(0, len(rest) - 1) // 4 * 4  # the last group may be padded
        chunks.append(_decode_groups(rest[:end]))
        rest = rest[end:]
    data = rest.rstrip("=")
    if len(data) < len(rest) and (len(data) < 2 or len(rest) != 4):  # noqa: PLR2004  (a group: 2 to 4 of 4 characters)
        raise ValueError("the padding is wrong")
    return b"".join([*chunks, _decode_groups(data, "=" * (-len(data) % 4))])


def _decode_groups(text: str, padding: str = "") -> bytes:
    """Decode groups of four characters, of which only the last may lack some, given as `padding`."""
    if "=" in text:
        raise ValueError("padding before the end")
    return base64.b64decode(text + padding, validate=True)


async def decode_image(resources: Resources, data: bytes, param: str) -> Image.Image:
    """Return the image upright, by its EXIF orientation. Raises RequestRejected for an invalid or too large image."""
    limits = resources.settings.limits
    check_size(len(data), param, limits)
    with translate_image_errors(param):
        return await image_work(lambda: upright(upload_files.decode(data, limits)))


def check_size(size: int, param: str, limits: Limits) -> None:
    """Raise RequestRejected for an image file over the size limit."""
    if size > limits.image_file_mib * MIB:
        raise _too_large(param, limits)


def _too_large(param: str, limits: Limits) -> RequestRejected:
    return RequestRejected(f"the image is over {limits.image_file_mib} MiB (setting limits.image_file_mib)", param)


@contextmanager
def translate_image_errors(param: str) -> Iterator[None]:
    """Raise RequestRejected, naming `param`, in place of NotAnImage and TooManyPixels."""
    try:
        yield
    except (NotAnImage, TooManyPixels) as error:
        raise RequestRejected(str(error), param) from error


def flatten(image: Image.Image, background: str = "white") -> Image.Image:
    """Return the image as RGB, with transparent areas blended onto `background`."""
    if not image.has_transparency_data:
        return convert(image, "RGB")
    base = Image.new("RGBA", image.size, background)
    return convert(Image.alpha_composite(base, convert(image, "RGBA")), "RGB")


def resize_image(
    image: Image.Image, size: tuple[int, int], mode: Literal["stretch", "crop", "fill"] = "stretch"
) -> Image.Image:
    """Return the image at `size`: stretched, cropped around its center, or fitted inside with its edges repeated."""
    if image.size == size:
        return image
    if mode == "stretch":
        return image.resize(size, Image.Resampling.LANCZOS)
    if mode == "crop":
        return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    scaled = ImageOps.contain(image, size, Image.Resampling.LANCZOS)
    canvas = scaled.resize(size, Image.Resampling.NEAREST)
    left, top = (size[0] - scaled.width) // 2, (size[1] - scaled.height) // 2
    if left:
        sides = ((0, left, 0), (left + scaled.width, size[0] - left - scaled.width, scaled.width - 1))
        for offset, width, column in sides:
            edge = scaled.crop((column, 0, column + 1, scaled.height)).resize((max(width, 1), size[1]))
            canvas.paste(edge, (offset, 0))
    if top:
        rows = ((0, top, 0), (top + scaled.height, size[1] - top - scaled.height, scaled.height - 1))
        for offset, height, row in rows:
            edge = scaled.crop((0, row, scaled.width, row + 1)).resize((size[0], max(height, 1)))
            canvas.paste(edge, (0, offset))
    canvas.paste(scaled, (left, top))
    return canvas


async def save_intermediate(
    resources: Resources, image: Image.Image, user: User, category: ImageCategory = ImageCategory.USER
) -> str:
    """Store an image as an intermediate of the user, as the input of a run; return its name."""
    record = await service.save(
        resources,
        image,
        category=category,
        origin=ResourceOrigin.EXTERNAL,
        is_intermediate=True,
        user_id=user.user_id,
    )
    return record.image_name


# Output


async def read_image_file(resources: Resources, name: str, format: Format = "png", quality: int | None = None) -> bytes:  # noqa: A002  (the API's name)
    """Return the file of a stored image in `format`; a PNG unchanged, with its embedded metadata, if it is upright."""
    file = await service.file(resources, name)
    return await process(file.read, lambda data: _convert_file(data, format, quality))


def _convert_file(data: bytes, format: Format, quality: int | None) -> bytes:  # noqa: A002
    with open_stored_image(io.BytesIO(data)) as image:
        if format == "png" and orientation(image) == 1:
            return data
        return encode(read_upright(image), format, quality)


def read_upright(image: Image.Image) -> Image.Image:
    """Return an opened image, decoded and upright."""
    image.load()
    return upright(image)


def encode(image: Image.Image, format: Format, quality: int | None = None) -> bytes:  # noqa: A002
    """Return the image as an encoded file; `quality` is 0..100, for JPEG and WebP."""
    file = io.BytesIO()
    if format == "png":
        png.storable(image).save(file, "PNG", compress_level=1, icc_profile=None)
    else:
        effective_quality = DEFAULT_QUALITY if quality is None else quality
        flatten(image).save(file, format.upper(), quality=effective_quality)
    return file.getvalue()


def encode_base64(data: bytes) -> str:
    """Return the bytes as base64."""
    return base64.b64encode(data).decode("ascii")


async def resize_preview(preview: str, size: tuple[int, int], format: Format = "png") -> bytes:  # noqa: A002
    """Return a progress preview (a data URL) at the size of the final image, as an encoded file."""
    data = base64.b64decode(preview.partition(",")[2])

    def work() -> bytes:
        with open_image(io.BytesIO(data), ("JPEG", "PNG", "WEBP")) as image:
            return encode(convert(image, "RGB").resize(size, Image.Resampling.BILINEAR), format)

    return await image_work(work)
