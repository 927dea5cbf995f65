"""Upscaling of images without a model. `upscale` is blocking."""

from PIL import Image, ImageOps

from invokeclone.images import image_work
from invokeclone.kit.files.image_modes import visible
from invokeclone.kit.resources import Resources
from invokeclone.queue.generation import SizeOverLimits, is_within_limits
from invokeclone.shims import image_io
from invokeclone.shims.automatic1111.plan import UPSCALERS
from invokeclone.shims.automatic1111.schemas import Upscale
from invokeclone.shims.compat_api import RequestRejected
from invokeclone.shims.image_io import Format

METHODS = {"Lanczos": Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}
BY_FACTOR = 0


def refuse_unsupported(request: Upscale) -> None:
    """Raise RequestRejected for unsupported settings."""
    for name in ("gfpgan_visibility", "codeformer_visibility"):
        if getattr(request, name) > 0:
            raise RequestRejected(f"{name}: face restoration is not supported", name)
    for name in ("upscaler_1", "upscaler_2"):
        if getattr(request, name) not in UPSCALERS:
            names = ", ".join(UPSCALERS)
            raise RequestRejected(f"{name}: unknown upscaler {getattr(request, name)!r}; there are: {names}", name)


def upscale(image: Image.Image, request: Upscale) -> Image.Image:
    """Return the resized image, unchanged for upscaler None. Raises RequestRejected for a size over the limits."""
    if request.upscaler_1 not in METHODS:
        return image
    if request.resize_mode == BY_FACTOR:
        factor = request.upscaling_resize
    else:
        factor = max(request.upscaling_resize_w / image.width, request.upscaling_resize_h / image.height)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    if not is_within_limits(*size):
        raise RequestRejected(str(SizeOverLimits(*size)))
    plain = visible(image)
    result = plain.resize(size, METHODS[request.upscaler_1])
    if request.upscaler_2 in METHODS and request.extras_upscaler_2_visibility > 0:
        second_result = plain.resize(size, METHODS[request.upscaler_2])
        result = Image.blend(result, second_result, request.extras_upscaler_2_visibility)
    if request.resize_mode != BY_FACTOR and request.upscaling_crop:
        return ImageOps.fit(
            result, (request.upscaling_resize_w, request.upscaling_resize_h), METHODS[request.upscaler_1]
        )
    return result


async def upscale_base64(resources: Resources, text: str, request: Upscale, format: Format, param: str) -> str:  # noqa: A002  (the API's name)
    """Return an upscaled image, from and to base64."""
    data = await image_work.image_work(lambda: image_io.decode_base64(text, param, resources.settings.limits))
    image = await image_io.decode_image(resources, data, param)
    return await image_work.image_work(lambda: image_io.encode_base64(image_io.encode(upscale(image, request), format)))
