"""Initial images that a client sent, and masks of what changes in them."""

from dataclasses import replace

from PIL import Image, ImageChops, ImageFilter, ImageOps

from invokeclone.graph.recipes import InitImage, InpaintMask
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.kit.resources import Resources
from invokeclone.queue.generation import ResolvedRequest, require_capability
from invokeclone.shims import pictures
from invokeclone.users.current import User

MAX_EDITED_PIXELS = 1024 * 1024
"""Pixels to which a picture is brought that comes without a generation_request size."""
SOFT_SHARE = 64
"""What part of an image's shorter side is the width of the fading border inside a mask."""


def within_edit_limit(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size, smaller in the same proportions where it has too many pixels."""
    width, height = size
    scale = min(1.0, (MAX_EDITED_PIXELS / (width * height)) ** 0.5)
    return max(1, round(width * scale)), max(1, round(height * scale))


async def begin_with(
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
        base = pictures.fitted(pictures.flat(image), size, "crop")
        return base, None if mask is None else _soft(pictures.fitted(_opacity(mask), size, "crop"))

    base, soft = await pictures.image_work(prepare)
    init_image = InitImage(await pictures.keep(resources, base, user), strength)
    inpaint_mask = None
    if soft is not None:
        init_image = replace(init_image, strength=1.0)
        inpaint_mask = InpaintMask(await pictures.keep(resources, soft, user, ImageCategory.MASK))
    settings = replace(resolved.settings, init_image=init_image, inpaint_mask=inpaint_mask)
    return replace(resolved, settings=settings)


def _opacity(mask: Image.Image) -> Image.Image:
    """Return white where a mask is opaque. One without transparency is read as most tools draw it: white is made new."""
    if mask.has_transparency_data:
        return mask.convert("RGBA").getchannel("A")
    return ImageOps.invert(mask.convert("L"))


def _soft(keep: Image.Image) -> Image.Image:
    """Return the mask fading towards the inside; where it was white it stays so, so that nothing outside changes."""
    radius = min(keep.size) / SOFT_SHARE
    return ImageChops.lighter(keep, keep.filter(ImageFilter.GaussianBlur(radius)))
