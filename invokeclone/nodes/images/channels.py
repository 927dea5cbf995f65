"""Nodes that change images value by value with lookup tables of 256 entries."""

from collections.abc import Callable
from typing import Literal

from PIL import Image

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.vocabulary.fields import ImageField, InputField, WithBoard, WithMetadata
from invokeclone.kit.files.image_modes import convert, visible

COLOR_CHANNELS = Literal[
    "Red (RGBA)",
    "Green (RGBA)",
    "Blue (RGBA)",
    "Alpha (RGBA)",
    "Cyan (CMYK)",
    "Magenta (CMYK)",
    "Yellow (CMYK)",
    "Black (CMYK)",
    "Hue (HSV)",
    "Saturation (HSV)",
    "Value (HSV)",
    "Luminosity (LAB)",
    "A (LAB)",
    "B (LAB)",
    "Y (YCbCr)",
    "Cb (YCbCr)",
    "Cr (YCbCr)",
]

CHANNEL_FORMATS: dict[str, tuple[str, int]] = {
    "Red (RGBA)": ("RGBA", 0),
    "Green (RGBA)": ("RGBA", 1),
    "Blue (RGBA)": ("RGBA", 2),
    "Alpha (RGBA)": ("RGBA", 3),
    "Cyan (CMYK)": ("CMYK", 0),
    "Magenta (CMYK)": ("CMYK", 1),
    "Yellow (CMYK)": ("CMYK", 2),
    "Black (CMYK)": ("CMYK", 3),
    "Hue (HSV)": ("HSV", 0),
    "Saturation (HSV)": ("HSV", 1),
    "Value (HSV)": ("HSV", 2),
    "Luminosity (LAB)": ("LAB", 0),
    "A (LAB)": ("LAB", 1),
    "B (LAB)": ("LAB", 2),
    "Y (YCbCr)": ("YCbCr", 0),
    "Cb (YCbCr)": ("YCbCr", 1),
    "Cr (YCbCr)": ("YCbCr", 2),
}

VALUES = 256
FULL_CIRCLE = 360
MAPPABLE = frozenset({"L", "LA", "RGB", "RGBA"})


def table(change: Callable[[int], float]) -> list[int]:
    """Return the changed values for 0 to 255, truncated to integers and clipped to 0 to 255."""
    return [min(max(int(change(value)), 0), VALUES - 1) for value in range(VALUES)]


def map_values(image: Image.Image, values: list[int]) -> Image.Image:
    """Return `image` with each value of each channel, including alpha, looked up in `values`."""
    if image.mode not in MAPPABLE:
        image = visible(image)
    return image.point(values * len(image.getbands()))


def map_channel(image: Image.Image, mode: str, channel: int, values: list[int]) -> Image.Image:
    """Return `image` as RGBA, with one channel of a color space looked up in `values` and the transparency kept."""
    source = convert(image, "RGBA")
    bands = list((source if mode == "RGBA" else convert(convert(source, "RGB"), mode)).split())
    bands[channel] = bands[channel].point(values)
    changed = Image.merge(mode, bands)
    if mode == "RGBA":
        return changed
    changed = convert(convert(changed, "RGB"), "RGBA")
    changed.putalpha(source.getchannel("A"))
    return changed


@invocation("img_chan", title="Extract Image Channel", tags=["image", "channel"], category="image", version="1.2.2")
class ImageChannelInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Extract one channel of an image as a grayscale image."""

    image: ImageField = InputField(description="The source image")
    channel: Literal["A", "R", "G", "B"] = InputField(default="A", description="The channel to extract")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Extract and save the channel."""
        image = context.images.get_pil(self.image.image_name, mode="RGBA")
        return ImageOutput.build(context.images.save(image.getchannel(self.channel)))


@invocation(
    "img_channel_offset",
    title="Offset Image Channel",
    tags=[
        "image", "offset", "red", "green", "blue", "alpha", "cyan", "magenta", "yellow", "black",
        "hue", "saturation", "luminosity", "value",
    ],
    category="image",
    version="1.2.3",
)  # fmt: skip
class ImageChannelOffsetInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Add an offset to one channel. Hue wraps around, other channels are clipped."""

    image: ImageField = InputField(description="The image to change")
    channel: COLOR_CHANNELS = InputField(description="The channel to change")
    offset: int = InputField(default=0, ge=-255, le=255, description="The offset to add")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Change and save the image."""
        mode, channel = CHANNEL_FORMATS[self.channel]
        circles = self.channel == "Hue (HSV)"
        values = table(lambda value: (value + self.offset) % VALUES if circles else value + self.offset)
        image = context.images.get_pil(self.image.image_name)
        return ImageOutput.build(context.images.save(map_channel(image, mode, channel, values)))


@invocation(
    "img_channel_multiply",
    title="Multiply Image Channel",
    tags=[
        "image", "invert", "scale", "multiply", "red", "green", "blue", "alpha", "cyan", "magenta", "yellow", "black",
        "hue", "saturation", "luminosity", "value",
    ],
    category="image",
    version="1.2.3",
)  # fmt: skip
class ImageChannelMultiplyInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Multiply one channel, and optionally invert it."""

    image: ImageField = InputField(description="The image to change")
    channel: COLOR_CHANNELS = InputField(description="The channel to change")
    scale: float = InputField(default=1.0, ge=0.0, description="The factor")
    invert_channel: bool = InputField(default=False, description="Whether to invert the result")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Change and save the image."""
        mode, channel = CHANNEL_FORMATS[self.channel]
        values = table(lambda value: value * self.scale)
        if self.invert_channel:
            values = [VALUES - 1 - value for value in values]
        image = context.images.get_pil(self.image.image_name)
        return ImageOutput.build(context.images.save(map_channel(image, mode, channel, values)))


@invocation("img_hue_adjust", title="Adjust Image Hue", tags=["image", "hue"], category="image", version="1.2.2")
class ImageHueAdjustmentInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Rotate the hue of every color."""

    image: ImageField = InputField(description="The image to change")
    hue: int = InputField(default=0, description="Rotation in degrees, 0 to 360")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Change and save the image."""
        turn = int(VALUES * (self.hue % FULL_CIRCLE) / FULL_CIRCLE)
        image = context.images.get_pil(self.image.image_name)
        changed = map_channel(image, "HSV", 0, table(lambda value: (value + turn) % VALUES))
        return ImageOutput.build(context.images.save(changed))


@invocation("img_lerp", title="Lerp Image", tags=["image", "lerp"], category="image", version="1.2.2")
class ImageLerpInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Map all values from 0 to 255 linearly to a smaller range."""

    image: ImageField = InputField(description="The image to change")
    min: int = InputField(default=0, ge=0, le=255, description="New value of 0")
    max: int = InputField(default=255, ge=0, le=255, description="New value of 255")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Change and save the image."""
        values = table(lambda value: self.min + value * (self.max - self.min) / (VALUES - 1))
        image = context.images.get_pil(self.image.image_name)
        return ImageOutput.build(context.images.save(map_values(image, values)))


@invocation("img_ilerp", title="Inverse Lerp Image", tags=["image", "ilerp"], category="image", version="1.2.2")
class ImageInverseLerpInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Map a range of values linearly to 0 to 255; values outside are clipped."""

    image: ImageField = InputField(description="The image to change")
    min: int = InputField(default=0, ge=0, le=255, description="Value that becomes 0")
    max: int = InputField(default=255, ge=0, le=255, description="Value that becomes 255")

    def _stretch(self, value: int) -> float:
        if self.max == self.min:
            return VALUES if value > self.min else 0
        return (value - self.min) * (VALUES - 1) / (self.max - self.min)

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Change and save the image."""
        image = context.images.get_pil(self.image.image_name)
        return ImageOutput.build(context.images.save(map_values(image, table(self._stretch))))
