"""Prepares the image and mask of `img2img`: resizing, filling, cropping. Blocking, except for `save_images`."""

from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageFilter, ImageOps, ImageStat

from invokeclone.graph.recipes import InitImage, InpaintMask, PasteTarget
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.kit.files.image_modes import convert
from invokeclone.kit.resources import Resources
from invokeclone.queue.generation import MAX_PIXELS
from invokeclone.shims import image_io
from invokeclone.shims.automatic1111.schemas import ImageToImage
from invokeclone.shims.compat_api import RequestRejected
from invokeclone.users.current import User

Box = tuple[int, int, int, int]
Fit = Literal["stretch", "crop", "fill"]
FITS: tuple[Fit, Fit, Fit] = ("stretch", "crop", "fill")
"""Resize methods by `resize_mode`."""
HALF = 128
FILL, NOISE = 0, 2
"""Values of `inpainting_fill`."""
FILL_RADII = (256, 64, 16, 4)
"""Blur radii in pixels by which surrounding colors flow into a hole, largest first."""


@dataclass(frozen=True)
class InpaintInput:
    """Input images of a run. Masks are in mode "L", white where the image stays unchanged."""

    image: Image.Image
    mask: Image.Image | None = None
    feather: int = 0
    full_image: Image.Image | None = None
    """The full image that the result is pasted into."""
    box: Box | None = None
    box_mask: Image.Image | None = None
    """A mask of the size of the box, with a soft border."""


def arrange(image: Image.Image, mask: Image.Image | None, request: ImageToImage, size: tuple[int, int]) -> InpaintInput:
    """Return image and mask at `size`; with `inpaint_full_res`, only the region around the mask, enlarged."""
    image = image_io.flatten(image)
    fit = FITS[request.resize_mode]
    if mask is None:
        return InpaintInput(image_io.resize_image(image, size, fit))
    repainted = to_binary(mask, image.size)
    if request.inpainting_mask_invert:
        repainted = ImageOps.invert(repainted)
    blur_x, blur_y = blur_of(request)
    blurred = repainted.filter(ImageFilter.GaussianBlur((blur_x, blur_y)))
    if request.inpaint_full_res and (bounds := blurred.getbbox()):
        if image.width * image.height > MAX_PIXELS:
            raise RequestRejected(f"{image.width}x{image.height} is over {MAX_PIXELS} pixels", "init_images")
        box = expand_region(bounds, request.inpaint_full_res_padding, image.size, size)
        image_part, mask_part = image.crop(box).resize(size, Image.Resampling.LANCZOS), repainted.crop(box)
        mask_part = to_binary(mask_part, size)
        keep_mask = ImageOps.invert(mask_part)
        return InpaintInput(
            _initial_image(image_part, mask_part, request), keep_mask, 0, image, box, ImageOps.invert(blurred.crop(box))
        )
    image_part = image_io.resize_image(image, size, fit)
    mask_part = to_binary(image_io.resize_image(repainted, size, fit), size)
    return InpaintInput(_initial_image(image_part, mask_part, request), ImageOps.invert(mask_part), max(blur_x, blur_y))


def _initial_image(image: Image.Image, mask: Image.Image, request: ImageToImage) -> Image.Image:
    return fill_hole(image, mask) if request.inpainting_fill == FILL else image


def blur_of(request: ImageToImage) -> tuple[int, int]:
    """Return the horizontal and vertical blur radius of the mask's border, in pixels."""
    if request.mask_blur is not None:
        return request.mask_blur, request.mask_blur
    return request.mask_blur_x, request.mask_blur_y


def to_binary(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a mask in black and white at `size`; of a mask with transparency, the alpha channel."""
    if mask.has_transparency_data and convert(mask, "RGBA").getchannel("A").getextrema() != (255, 255):
        gray = convert(mask, "RGBA").getchannel("A")
    else:
        gray = convert(mask, "L")
    if gray.size != size:
        gray = gray.resize(size, Image.Resampling.BILINEAR)
    return gray.point(lambda value: 255 if value >= HALF else 0)


def expand_region(bounds: Box, padding: int, image_size: tuple[int, int], size: tuple[int, int]) -> Box:
    """Return `bounds` with padding, widened to the aspect ratio of `size` as far as the image allows."""
    left, top, right, bottom = bounds
    left, right = max(0, left - padding), min(image_size[0], right + padding)
    top, bottom = max(0, top - padding), min(image_size[1], bottom + padding)
    width, height = right - left, bottom - top
    if width * size[1] > height * size[0]:
        top, bottom = _widen(top, bottom, round(width * size[1] / size[0]), image_size[1])
    else:
        left, right = _widen(left, right, round(height * size[0] / size[1]), image_size[0])
    return left, top, right, bottom


def _widen(first: int, last: int, length: int, limit: int) -> tuple[int, int]:
    """Return a range of `length` (at most `limit`) around the given one, shifted to stay within 0 and `limit`."""
    length = min(max(length, last - first), limit)
    first = min(max(0, first - (length - (last - first)) // 2), limit - length)
    return first, first + length


def fill_hole(image: Image.Image, hole: Image.Image) -> Image.Image:
    """Return an RGB image whose hole (white in a mask of mode "L") has the surrounding colors."""
    surroundings = ImageOps.invert(hole)
    if not surroundings.getbbox():
        return image
    source = convert(image, "RGBA")
    source.putalpha(surroundings)
    mean = tuple(round(value) for value in ImageStat.Stat(image, surroundings).mean)
    result = Image.new("RGBA", image.size, (*mean, 255))
    weighted = convert(source, "RGBa")
    for radius in FILL_RADII:
        result.alpha_composite(convert(weighted.filter(ImageFilter.GaussianBlur(radius)), "RGBA"))
    colors = convert(result, "RGB")
    colors.paste(image, mask=surroundings)
    return colors


async def save_images(
    resources: Resources, user: User, inputs: InpaintInput, request: ImageToImage, strength: float
) -> tuple[InitImage, InpaintMask | None, PasteTarget | None]:
    """Store the images as intermediates; return the settings that refer to them."""
    init_image = InitImage(await image_io.save_intermediate(resources, inputs.image, user), strength)
    if inputs.mask is None:
        return init_image, None, None
    inpaint_mask = InpaintMask(
        mask=await image_io.save_intermediate(resources, inputs.mask, user, ImageCategory.MASK),
        feather=inputs.feather,
        paste=inputs.full_image is None,
        fill="noise" if request.inpainting_fill == NOISE else "original",
    )
    if inputs.full_image is None or inputs.box is None or inputs.box_mask is None:
        return init_image, inpaint_mask, None
    left, top, right, bottom = inputs.box
    target = PasteTarget(
        image=await image_io.save_intermediate(resources, inputs.full_image, user),
        mask=await image_io.save_intermediate(resources, inputs.box_mask, user, ImageCategory.MASK),
        left=left,
        top=top,
        width=right - left,
        height=bottom - top,
    )
    return init_image, inpaint_mask, target
