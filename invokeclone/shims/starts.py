"""Runs that begin with a picture that a client sent, and change it where a mask lets them."""

from dataclasses import replace

from PIL import Image, ImageChops, ImageFilter, ImageOps

from invokeclone.graph.recipes import Keep, Start
from invokeclone.graph.taxonomy import ImageCategory
from invokeclone.kit.resources import Resources
from invokeclone.queue.generation import Chosen
from invokeclone.shims import pictures
from invokeclone.users.current import User

MOST_EDITED = 1024 * 1024
"""Pixels to which a picture is brought that comes without a wanted size."""
SOFT_SHARE = 64
"""What part of a picture's shorter side is the width of the fading border inside a mask."""


def within(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size, smaller in the same proportions where it has too many pixels."""
    width, height = size
    scale = min(1.0, (MOST_EDITED / (width * height)) ** 0.5)
    return max(1, round(width * scale)), max(1, round(height * scale))


async def begin_with(
    resources: Resources,
    user: User,
    chosen: Chosen,
    image: Image.Image,
    strength: float,
    mask: Image.Image | None = None,
) -> Chosen:
    """Let the run begin with a picture, cut to the proportions that are wanted; `strength` 0..1 of it is made new.

    With a mask, what is transparent in it is made new altogether, and what is opaque stays exactly.
    """
    size = (chosen.picture.width, chosen.picture.height)

    def prepare() -> tuple[Image.Image, Image.Image | None]:
        base = pictures.fitted(pictures.flat(image), size, "crop")
        return base, None if mask is None else _soft(pictures.fitted(_opacity(mask), size, "crop"))

    base, soft = await pictures.in_thread(prepare)
    start = Start(await pictures.keep(resources, base, user), strength)
    keep = None
    if soft is not None:
        start = replace(start, strength=1.0)
        keep = Keep(await pictures.keep(resources, soft, user, ImageCategory.MASK))
    return replace(chosen, picture=replace(chosen.picture, start=start, keep=keep))


def _opacity(mask: Image.Image) -> Image.Image:
    """Return white where a mask is opaque. One without transparency is read as most tools draw it: white is made new."""
    if mask.has_transparency_data:
        return mask.convert("RGBA").getchannel("A")
    return ImageOps.invert(mask.convert("L"))


def _soft(keep: Image.Image) -> Image.Image:
    """Return the mask fading towards the inside; where it was white it stays so, so that nothing outside changes."""
    radius = min(keep.size) / SOFT_SHARE
    return ImageChops.lighter(keep, keep.filter(ImageFilter.GaussianBlur(radius)))
