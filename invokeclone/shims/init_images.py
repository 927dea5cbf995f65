"""Initial images that a client sent, and masks of what changes in them."""

from dataclasses import replace

from PIL import Image, ImageChops, ImageFilter, ImageOps

from invokeclone.graph.recipes import InitImage, InpaintMask
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.kit.resources import Resources
from invokeclone.queue.generation import ResolvedRequest, require_capability
from invokeclone.shims import image_io
from invokeclone.users.current import User

MAX_EDITED_PIXELS = 1024 * 1024
"""Pixels to which a picture is brought that comes without a generation_request size."""
FEATHER_DIVISOR = 64
"""What part of an image's shorter side is the width of the fading border inside a mask."""


def limit_edit_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size, smaller in the same proportions where it has too many pixels."""
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
    """Return the request with an initial image, cut to the proportions of the result, and its denoising strength (0..1).

    With a mask, what is transparent in it is made anew altogether, and what is opaque stays exactly. Raises InvalidGeneration
    when the model cannot begin with an image, or keep a part of one.
    """
    require_capability(resolved.config, "image_to_image")
    if mask is not None:
        require_capability(resolved.config, "inpaint")
    size = (resolved.settings.width, resolved.settings.height)

    def prepare() -> tuple[Image.Image, Image.Image | None]:
        base = image_io.resize_image(image_io.flatten(image), size, "crop")
        return base, None if mask is None else _feather_inward(image_io.resize_image(_opacity_mask(mask), size, "crop"))

    base, feathered_mask = await image_io.image_work(prepare)
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
    """Return white where a mask is opaque. One without transparency is read as most tools draw it: white is made new."""
    if mask.has_transparency_data:
        return mask.convert("RGBA").getchannel("A")
    return ImageOps.invert(mask.convert("L"))


def _feather_inward(mask: Image.Image) -> Image.Image:
    """Return the mask fading towards the inside; where it was white it stays so, so that nothing outside changes."""
    radius = min(mask.size) / FEATHER_DIVISOR
    return ImageChops.lighter(mask, mask.filter(ImageFilter.GaussianBlur(radius)))
