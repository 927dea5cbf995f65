"""Nodes of masks: white is what changes."""

from invokeclone.shims.comfyui.nodes.images import IMAGE, PICTURE, loaded
from invokeclone.shims.comfyui.values import Images, Mask
from invokeclone.shims.comfyui.vocabulary import Lead, Place, choice, link, node

CHANNELS = ("red", "green", "blue", "alpha")


@node(
    "LoadImageMask",
    "Load Image (as Mask)",
    "mask",
    {"image": PICTURE, "channel": choice("alpha", *CHANNELS[:3])},
    "MASK",
)
def load(place: Place, *, image: str, channel: str) -> tuple[Mask]:
    """Take a channel of a picture as a mask; of alpha, what is transparent is white."""
    field, _, _ = loaded(place, image)
    taken = place.add("channel", "img_chan", image=field, channel=channel[0].upper())
    return (Mask(Lead(f"{taken}.image"), white_changes=channel != "alpha"),)


@node("ImageToMask", "Convert Image to Mask", "mask", {"image": IMAGE, "channel": choice(*CHANNELS)}, "MASK")
def to_mask(place: Place, *, image: Images, channel: str) -> tuple[Mask]:
    """Take a channel of a picture as a mask."""
    taken = place.add("channel", "img_chan", image=image.nodes[0], channel=channel[0].upper())
    return (Mask(Lead(f"{taken}.image")),)


@node("InvertMask", "InvertMask", "mask", {"mask": link("MASK")}, "MASK")
def invert(place: Place, *, mask: Mask) -> tuple[Mask]:  # noqa: ARG001
    """Let change what stayed, and stay what changed."""
    return (mask.inverted(),)
