"""Initial images and inpaint masks that clients send."""

from dataclasses import replace

from PIL import Image, ImageChops, ImageFilter, ImageOps

from invokeclone.graph.recipes import InitImage, InpaintMask
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images import image_work
from invokeclone.kit.files.image_modes import convert
from invokeclone.kit.resources import Resources
from invokeclone.queue.generation import ResolvedRequest, require_capability
from invokeclone.shims import image_io
from invokeclone.users.current import User

MAX_EDITED_PIXELS = 1024 * 1024
"""Maximum number of pixels of the result if the request has an image but no size."""
FEATHER_DIVISOR = 64
"""The shorter side of the mask divided by the blur radius of its border."""


def limit_edit_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size, scaled down to at most `MAX_EDITED_PIXELS` pixels at the same aspect ratio."""
    width, height = size
    scale = min(1.0, (MAX_EDITED_PIXELS / (width * height)) ** 0.5)
    return max(1, round(width * scale)), max(1, round(height * scale))


async def with_init_image(
    resources: Resources,
    user: User,
    resolved: ResolvedRequest,
    image: Image.Image,
    strength: float,
    mask: Image.Image | None = None,
) -> ResolvedRequest:
    """Return the request with an initial image, cropped to the result's aspect ratio, and its strength (0..1).

    With a mask, its transparent area is repainted at full strength, and its opaque area stays unchanged. Raises
    InvalidGeneration when the model does not support image-to-image or inpainting.
    """
    require_capability(resolved.config, "image_to_image" if mask is None else "inpaint")
    size = (resolved.settings.width, resolved.settings.height)

    def prepare() -> tuple[Image.Image, Image.Image | None]:
        base = image_io.resize_image(image_io.flatten(image), size, "crop")
        return base, None if mask is None else _feather_inward(image_io.resize_image(_opacity_mask(mask), size, "crop"))

    base, feathered_mask = await image_work.image_work(prepare)
    init_image = InitImage(await image_io.save_intermediate(resources, base, user), strength)
    inpaint_mask = None
    if feathered_mask is not None:
        init_image = replace(init_image, strength=1.0)
        inpaint_mask = InpaintMask(
            await image_io.save_intermediate(resources, feathered_mask, user, ImageCategory.MASK)
        )
    settings = replace(resolved.settings, init_image=init_image, inpaint_mask=inpaint_mask)
    return replace(resolved, settings=settings)


def _opacity_mask(mask: Image.Image) -> Image.Image:
    """Return a mask that is white where the given one is opaque; without transparency, where it is black."""
    if mask.has_transparency_data:
        return convert(mask, "RGBA").getchannel("A")
    return ImageOps.invert(convert(mask, "L"))


def _feather_inward(mask: Image.Image) -> Image.Image:
    """Return the mask blurred into the black area only: white pixels, which stay unchanged, remain white."""
    radius = min(mask.size) / FEATHER_DIVISOR
    return ImageChops.lighter(mask, mask.filter(ImageFilter.GaussianBlur(radius)))
