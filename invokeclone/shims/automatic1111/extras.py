"""Pictures enlarged without a model. Blocking."""

from PIL import Image, ImageOps

from invokeclone.kit.resources import Resources
from invokeclone.queue.generation import SizeOverLimits, within_limits
from invokeclone.shims import pictures
from invokeclone.shims.automatic1111.plan import UPSCALERS
from invokeclone.shims.automatic1111.schemas import Upscale
from invokeclone.shims.dialect import Refused
from invokeclone.shims.pictures import Format

METHODS = {"Lanczos": Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}
BY_FACTOR = 0


def refuse_unsupported(asked: Upscale) -> None:
    """Raise Refused for what would have to be left out."""
    for name in ("gfpgan_visibility", "codeformer_visibility"):
        if getattr(asked, name) > 0:
            raise Refused(f"{name}: faces cannot be restored, there is no model for it", name)
    for name in ("upscaler_1", "upscaler_2"):
        if getattr(asked, name) not in UPSCALERS:
            raise Refused(f"{name}: there is no upscaler {getattr(asked, name)!r}", name)


def enlarged(image: Image.Image, asked: Upscale) -> Image.Image:
    """Return the picture enlarged as is asked; with the upscaler None as it is. Raises Refused for a size over the limits."""
    if asked.upscaler_1 not in METHODS:
        return image
    if asked.resize_mode == BY_FACTOR:
        factor = asked.upscaling_resize
    else:
        factor = max(asked.upscaling_resize_w / image.width, asked.upscaling_resize_h / image.height)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    if not within_limits(*size):
        raise Refused(str(SizeOverLimits(*size)))
    plain = image.convert("RGBA" if image.has_transparency_data else "RGB")
    result = plain.resize(size, METHODS[asked.upscaler_1])
    if asked.upscaler_2 in METHODS and asked.extras_upscaler_2_visibility > 0:
        other = plain.resize(size, METHODS[asked.upscaler_2])
        result = Image.blend(result, other, asked.extras_upscaler_2_visibility)
    if asked.resize_mode != BY_FACTOR and asked.upscaling_crop:
        return ImageOps.fit(result, (asked.upscaling_resize_w, asked.upscaling_resize_h), METHODS[asked.upscaler_1])
    return result


async def answered(resources: Resources, text: str, asked: Upscale, format: Format, param: str) -> str:  # noqa: A002  (the field's word)
    """Return a picture in base64, enlarged."""
    data = await pictures.image_work(lambda: pictures.unpacked(text, param, resources.settings.limits))
    image = await pictures.opened(resources, data, param)
    return await pictures.image_work(lambda: pictures.base64_of(pictures.encoded(enlarged(image, asked), format)))
