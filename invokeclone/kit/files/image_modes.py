"""Conversion of images between modes: the only place that converts, so that no pixel is clipped and no image lies on its side.

Pillow clips gray levels over 255 when it converts images of 16 or 32 bits or of floating-point numbers; here they are
scaled. `tests/kit/test_one_way.py` checks that no other module calls Pillow's own conversion.
"""

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

ORIENTATION = "invokeclone_orientation"
"""Text in stored images whose pixels are not upright: the value of the EXIF tag of the uploaded file."""
_EXIF_ORIENTATION = 0x0112
_ORIENTATIONS = {"1", "2", "3", "4", "5", "6", "7", "8"}
_ORIENTED = {ORIENTATION, "exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
"""Entries of an image's information that may contain an orientation."""
_WHITE_8, _WHITE_16 = 255, 65535
_SCALE_16 = 257
_WITHOUT_KEY = {"1", "L", "RGB"}
"""Modes whose files may name one level or color that is transparent."""
_STEPS = {"CMYK": ("RGB",), "YCbCr": ("RGB",), "HSV": ("RGB",), "RGBa": ("RGBA",), "La": ("LA",), "PA": ("RGBA",)}
"""Modes to which Pillow converts few others, with what comes between."""
_NEAREST = {"La": "LA", "RGBa": "RGBA", "RGBX": "RGB"}
"""Modes from which Pillow converts to few others, with the mode that has the same content."""
_RANGES = (_WHITE_8, _WHITE_16, 2**31 - 1, 2**32 - 1)
"""White of images of integers: the smallest of these that the image does not exceed."""


def convert(image: "Image", mode: str) -> "Image":
    """Return a copy of `image` in `mode`.

    Gray levels of 16 and 32 bits and floating-point numbers are scaled to the range of `mode`; transparency is kept
    if `mode` has an alpha channel. The modes I and F get the levels of the image unchanged.
    """
    if image.mode == mode:
        result = image.copy()
        if mode in _WITHOUT_KEY:
            result.info.pop("transparency", None)
        return result
    if mode.startswith("I;16"):
        return _from_levels(_levels_16(image), image, mode)
    if mode in {"I", "F"}:
        return _to_numbers(image, mode)
    source = _in_8_bits(image)
    if mode == "LAB":
        return _lab(source.convert("RGB"), to_lab=True)
    for step in _STEPS.get(mode, ()):
        source = source if source.mode == step else source.convert(step)
    return source if source.mode == mode else source.convert(mode)


def visible(image: "Image") -> "Image":
    """Return a copy as RGBA if the image has transparency, else as RGB."""
    return convert(image, "RGBA" if image.has_transparency_data else "RGB")


def _in_8_bits(image: "Image") -> "Image":
    """Return the image itself or a copy in a mode of 8 bits per channel from which Pillow converts without loss."""
    if _is_deep(image):
        return _from_levels(_levels_16(image), image, "L")
    if image.mode == "LAB":
        return _lab(image, to_lab=False)
    mode = "RGBA" if "transparency" in image.info else _NEAREST.get(image.mode)
    return image.convert(mode) if mode else image


def _is_deep(image: "Image") -> bool:
    return image.mode[0] in "IF"


def _levels_16(image: "Image") -> Any:
    """Return gray levels from 0 to 65535 as an array of 16-bit numbers."""
    import numpy as np

    if not _is_deep(image):
        gray = np.asarray(_in_8_bits(image).convert("L"), dtype=np.uint16)
        return gray * np.uint16(_SCALE_16)
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return values.astype(np.uint16)
    numbers = np.nan_to_num(values.astype(np.float64), posinf=np.nan, neginf=np.nan)
    black, top = min(0.0, float(numbers.min())), float(numbers.max())
    ranges = (1, *_RANGES) if image.mode == "F" else _RANGES
    white = top if black < 0 else next((limit for limit in ranges if top <= limit), top)
    scaled = (numbers - black) * (_WHITE_16 / max(white - black, 1e-30))
    return np.clip(np.rint(scaled), 0, _WHITE_16).astype(np.uint16)


def _from_levels(levels: Any, image: "Image", mode: str) -> "Image":
    """Return levels of 16 bits as an image in `mode`; the transparent level of `image` becomes an alpha channel of L."""
    import numpy as np
    from PIL import Image

    transparent = image.info.get("transparency")
    if mode != "L":
        result = Image.fromarray(levels.astype("<u2"))
        result = result if mode == result.mode else result.convert(mode)
        result.info = {**image.info}
        if not image.mode.startswith("I;16"):
            result.info.pop("transparency", None)
        return result
    result = Image.fromarray(np.rint(levels / _SCALE_16).astype(np.uint8))
    if isinstance(transparent, int) and image.mode.startswith("I"):
        alpha = np.where(np.asarray(image) == transparent, 0, _WHITE_8).astype(np.uint8)
        result = Image.merge("LA", (result, Image.fromarray(alpha)))
    result.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return result


def _to_numbers(image: "Image", mode: str) -> "Image":
    """Return the image's levels as numbers: 0 to 255 of images of 8 bits, else unchanged."""
    import numpy as np
    from PIL import Image

    if image.mode in {"I", "F"}:
        return image.convert(mode)
    if not _is_deep(image):
        return _in_8_bits(image).convert("L").convert(mode)
    return Image.fromarray(np.asarray(image).astype(np.int32 if mode == "I" else np.float32))


def _lab(image: "Image", *, to_lab: bool) -> "Image":
    from PIL import ImageCms

    profiles = (ImageCms.createProfile("sRGB"), "RGB"), (ImageCms.createProfile("LAB"), "LAB")
    (source, source_mode), (target, target_mode) = profiles if to_lab else profiles[::-1]
    transform = ImageCms.buildTransform(source, target, source_mode, target_mode)
    result = ImageCms.applyTransform(image, transform)
    assert result is not None
    return result


# Colors and orientation of files


def apply_profile(image: "Image") -> "Image":
    """Return a decoded image with the colors that its embedded profile stands for, as sRGB, and without the profile.

    Images without a profile, with an sRGB profile or with one that cannot be used are returned as they are.
    """
    profile = image.info.pop("icc_profile", None)
    if not profile:
        return image
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = str(source.profile.xcolor_space).strip()
        if space == "RGB" and "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        mode = {"RGB": "RGB", "CMYK": "CMYK", "GRAY": "L"}[space]
        return _to_srgb(image, source, mode)
    except (ImageCms.PyCMSError, OSError, ValueError, KeyError, TypeError):
        return image


def _to_srgb(image: "Image", profile: Any, mode: str) -> "Image":
    """Return the image as sRGB by a profile of images in `mode`; transparency is kept. Raises ValueError, PyCMSError."""
    from PIL import ImageCms

    if image.mode == "CMYK":
        if mode != "CMYK":
            raise ValueError("the profile is not one of CMYK")
        colors, alpha = image, None
    elif mode == "CMYK" or _is_deep(image) or (mode == "L" and image.mode not in {"L", "LA", "1"}):
        raise ValueError("the profile does not match the image")
    else:
        alpha = convert(image, "RGBA").getchannel("A") if image.has_transparency_data else None
        colors = convert(image, mode)
        colors.info.pop("transparency", None)
    transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    result = ImageCms.applyTransform(colors, transform)
    assert result is not None
    result = result.convert("L") if mode == "L" else result
    if alpha is not None:
        result.putalpha(alpha)
    result.info.update({key: value for key, value in image.info.items() if key not in {"transparency", "icc_profile"}})
    return result


def orientation(image: "Image") -> int:
    """Return the EXIF orientation (1 to 8; 1 is upright) of an uploaded or stored image."""
    value: Any = image.info.get(ORIENTATION)
    if value is None:
        try:
            value = image.getexif().get(_EXIF_ORIENTATION, 1)
        except (SyntaxError, ValueError, OSError, TypeError, LookupError):  # damaged EXIF is no EXIF
            return 1
    number = int(value) if isinstance(value, int) or (isinstance(value, str) and value in _ORIENTATIONS) else 1
    return number if number in range(1, 9) else 1


def upright(image: "Image") -> "Image":
    """Return the decoded image as it is meant to be seen: rotated and flipped by its orientation, if any."""
    from PIL.Image import Transpose

    method = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation(image))
    if method is None:
        return image
    result = image.transpose(method)
    result.info = {key: value for key, value in result.info.items() if key not in _ORIENTED}
    return result


def swaps_sides(number: int) -> bool:
    """Return whether an orientation exchanges width and height."""
    return number in {5, 6, 7, 8}
