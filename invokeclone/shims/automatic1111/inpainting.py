"""The picture and the mask of `img2img`, arranged for a run: brought to size, filled, cut out. Blocking, but for `kept`."""

from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageFilter, ImageOps, ImageStat

from invokeclone.graph.recipes import InitImage, InpaintMask, PasteTarget
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.kit.resources import Resources
from invokeclone.queue.generation import MAX_PIXELS
from invokeclone.shims import pictures
from invokeclone.shims.automatic1111.schemas import ImageToImage
from invokeclone.shims.dialect import Refused
from invokeclone.users.current import User

Box = tuple[int, int, int, int]
Fit = Literal["stretch", "crop", "fill"]
FITS: tuple[Fit, Fit, Fit] = ("stretch", "crop", "fill")
"""How pictures are brought to size, by `resize_mode`."""
HALF = 128
FILL, NOISE = 0, 2
"""Values of `inpainting_fill`."""
REACHES = (256, 64, 16, 4)
"""From how far colors flow into a hole, in pixels, the farthest first."""


@dataclass(frozen=True)
class Arranged:
    """What a run begins with. Masks are "L", white where the old picture stays."""

    picture: Image.Image
    mask: Image.Image | None = None
    feather: int = 0
    whole: Image.Image | None = None
    """The larger picture that the result is put into."""
    place: Box | None = None
    place_mask: Image.Image | None = None
    """Of the size of the place, with a soft border."""


def arranged(image: Image.Image, mask: Image.Image | None, asked: ImageToImage, size: tuple[int, int]) -> Arranged:
    """Return picture and mask at `size`. With `inpaint_full_res` that is only the region around the mask, enlarged."""
    image = pictures.flat(image)
    fit = FITS[asked.resize_mode]
    if mask is None:
        return Arranged(pictures.fitted(image, size, fit))
    repainted = binary(mask, image.size)
    if asked.inpainting_mask_invert:
        repainted = ImageOps.invert(repainted)
    across, down = blur_of(asked)
    soft = repainted.filter(ImageFilter.GaussianBlur((across, down)))
    if asked.inpaint_full_res and (bounds := soft.getbbox()):
        if image.width * image.height > MAX_PIXELS:
            raise Refused(f"{image.width}x{image.height} is over {MAX_PIXELS} pixels", "init_images")
        place = region(bounds, asked.inpaint_full_res_padding, image.size, size)
        part, inside = image.crop(place).resize(size, Image.Resampling.LANCZOS), repainted.crop(place)
        inside = binary(inside, size)
        keep = ImageOps.invert(inside)
        return Arranged(_begun(part, inside, asked), keep, 0, image, place, ImageOps.invert(soft.crop(place)))
    part = pictures.fitted(image, size, fit)
    inside = binary(pictures.fitted(repainted, size, fit), size)
    return Arranged(_begun(part, inside, asked), ImageOps.invert(inside), max(across, down))


def _begun(picture: Image.Image, inside: Image.Image, asked: ImageToImage) -> Image.Image:
    return filled(picture, inside) if asked.inpainting_fill == FILL else picture


def blur_of(asked: ImageToImage) -> tuple[int, int]:
    """Return how soft the mask's border is across and down, in pixels."""
    if asked.mask_blur is not None:
        return asked.mask_blur, asked.mask_blur
    return asked.mask_blur_x, asked.mask_blur_y


def binary(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a mask as black and white at `size`; one with transparency says by its opacity what is white."""
    if mask.has_transparency_data and mask.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        gray = mask.convert("RGBA").getchannel("A")
    else:
        gray = mask.convert("L")
    if gray.size != size:
        gray = gray.resize(size, Image.Resampling.BILINEAR)
    return gray.point(lambda value: 255 if value >= HALF else 0)


def region(bounds: Box, padding: int, within: tuple[int, int], size: tuple[int, int]) -> Box:
    """Return `bounds` with padding, widened to the proportions of `size` as far as the picture `within` reaches."""
    left, top, right, bottom = bounds
    left, right = max(0, left - padding), min(within[0], right + padding)
    top, bottom = max(0, top - padding), min(within[1], bottom + padding)
    width, height = right - left, bottom - top
    if width * size[1] > height * size[0]:
        top, bottom = _widened(top, bottom, round(width * size[1] / size[0]), within[1])
    else:
        left, right = _widened(left, right, round(height * size[0] / size[1]), within[0])
    return left, top, right, bottom


def _widened(first: int, last: int, length: int, most: int) -> tuple[int, int]:
    """Return a stretch of `length` (at most `most`) around another, moved back inside where it would stick out."""
    length = min(max(length, last - first), most)
    first = min(max(0, first - (length - (last - first)) // 2), most - length)
    return first, first + length


def filled(picture: Image.Image, hole: Image.Image) -> Image.Image:
    """Return an RGB picture whose hole (white in "L") has the colors of what is around it."""
    around = ImageOps.invert(hole)
    if not around.getbbox():
        return picture
    known = picture.convert("RGBA")
    known.putalpha(around)
    mean = tuple(round(value) for value in ImageStat.Stat(picture, around).mean)
    result = Image.new("RGBA", picture.size, (*mean, 255))
    weighted = known.convert("RGBa")
    for reach in REACHES:
        result.alpha_composite(weighted.filter(ImageFilter.GaussianBlur(reach)).convert("RGBA"))
    colors = result.convert("RGB")
    colors.paste(picture, mask=around)
    return colors


async def kept(
    resources: Resources, user: User, ready: Arranged, asked: ImageToImage, strength: float
) -> tuple[InitImage, InpaintMask | None, PasteTarget | None]:
    """Keep the images as intermediates; returns what the settings say of them."""
    init_image = InitImage(await pictures.keep(resources, ready.picture, user), strength)
    if ready.mask is None:
        return init_image, None, None
    inpaint_mask = InpaintMask(
        mask=await pictures.keep(resources, ready.mask, user, ImageCategory.MASK),
        feather=ready.feather,
        paste=ready.whole is None,
        fill="noise" if asked.inpainting_fill == NOISE else "original",
    )
    if ready.whole is None or ready.place is None or ready.place_mask is None:
        return init_image, inpaint_mask, None
    left, top, right, bottom = ready.place
    target = PasteTarget(
        image=await pictures.keep(resources, ready.whole, user),
        mask=await pictures.keep(resources, ready.place_mask, user, ImageCategory.MASK),
        left=left,
        top=top,
        width=right - left,
        height=bottom - top,
    )
    return init_image, inpaint_mask, target
