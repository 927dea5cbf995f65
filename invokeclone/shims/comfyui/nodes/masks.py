"""Mask nodes. Masks are white in the area that changes."""

from invokeclone.queue.generation import MAX_SIDE
from invokeclone.shims.comfyui.node_types import BuildContext, choice, integer, link, node, number
from invokeclone.shims.comfyui.nodes.images import IMAGE, IMAGE_FILE, check_image_size, find_image
from invokeclone.shims.comfyui.values import ImageBatch, Mask

CHANNELS = ("red", "green", "blue", "alpha")


@node(
    "LoadImageMask",
    "Load Image (as Mask)",
    "mask",
    {"image": IMAGE_FILE, "channel": choice("alpha", *CHANNELS[:3])},
    "MASK",
)
def load(context: BuildContext, *, image: str, channel: str) -> tuple[Mask]:
    """Load a channel of an image as a mask; of alpha, transparent pixels are white."""
    field, width, height = find_image(context, image)
    channel_image = context.output("channel", "img_chan", "image", image=field, channel=channel[0].upper())
    return (Mask(channel_image, width, height, white_changes=channel != "alpha"),)


@node("ImageToMask", "Convert Image to Mask", "mask", {"image": IMAGE, "channel": choice(*CHANNELS)}, "MASK")
def to_mask(context: BuildContext, *, image: ImageBatch, channel: str) -> tuple[Mask]:
    """Convert a channel of an image to a mask."""
    channel_image = context.output("channel", "img_chan", "image", image=image.nodes[0], channel=channel[0].upper())
    return (Mask(channel_image, image.width, image.height),)


@node("MaskToImage", "Convert Mask to Image", "mask", {"mask": link("MASK")}, "IMAGE")
def to_image(context: BuildContext, *, mask: Mask) -> tuple[ImageBatch]:
    """Convert a mask to an image."""
    gray = mask.to_image(context, "gray", white_changes=True)
    image = context.output("image", "img_conv", "image", image=gray, mode="RGB")
    return (ImageBatch((image,), mask.width, mask.height),)


@node(
    "SolidMask",
    "SolidMask",
    "mask",
    {
        "value": number(1.0, 0.0, 1.0),
        "width": integer(512, 1, MAX_SIDE),
        "height": integer(512, 1, MAX_SIDE),
    },
    "MASK",
)
def solid(context: BuildContext, *, value: float, width: int, height: int) -> tuple[Mask]:
    """Create a mask of one gray value."""
    check_image_size(context, width, height)
    gray = round(value * 255)
    color = {"r": gray, "g": gray, "b": gray, "a": 255}
    blank = context.output("blank", "blank_image", "image", width=width, height=height, color=color)
    return (Mask(blank, width, height),)


@node("InvertMask", "InvertMask", "mask", {"mask": link("MASK")}, "MASK")
def invert(context: BuildContext, *, mask: Mask) -> tuple[Mask]:  # noqa: ARG001
    """Invert a mask."""
    return (mask.invert(),)
