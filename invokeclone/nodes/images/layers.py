"""Nodes that layer images: blend modes, and a subject composed onto another background."""

import re
from typing import Literal

from PIL import Image, ImageColor

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, NodeError, invocation
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.vocabulary.fields import ImageField, InputField, WithBoard, WithMetadata
from invokeclone.kit.files.image_modes import convert
from invokeclone.nodes.images.size import paste_on_canvas

BLEND_MODES = Literal[
    "Normal",
    "Lighten Only",
    "Darken Only",
    "Lighten Only (EAL)",
    "Darken Only (EAL)",
    "Hue",
    "Saturation",
    "Color",
    "Luminosity",
    "Linear Dodge (Add)",
    "Subtract",
    "Multiply",
    "Divide",
    "Screen",
    "Overlay",
    "Linear Burn",
    "Difference",
    "Hard Light",
    "Soft Light",
    "Vivid Light",
    "Linear Light",
    "Color Burn",
    "Color Dodge",
]
BLEND_SPACES = Literal["RGB", "Linear RGB", "HSL (RGB)", "HSV (RGB)", "Okhsl", "Okhsv", "Oklch (Oklab)", "LCh (CIELab)"]


def fit_size(size: tuple[int, int], frame: tuple[int, int], *, width: bool, height: bool) -> tuple[int, int]:
    """Return a size scaled to a frame's width or height, proportionally, or to both, ignoring proportions."""
    if width and height:
        return frame
    if width:
        return frame[0], max(1, round(size[1] * frame[0] / size[0]))
    if height:
        return max(1, round(size[0] * frame[1] / size[1])), frame[1]
    return size


def center_in_frame(
    image: Image.Image, frame: tuple[int, int], offset: tuple[int, int], *, width: bool, height: bool
) -> Image.Image:
    """Return RGBA of a frame's size with the image, scaled to it, centered and moved by `offset`."""
    size = fit_size(image.size, frame, width=width, height=height)
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return paste_on_canvas(image, frame, ((frame[0] - size[0]) // 2 + offset[0], (frame[1] - size[1]) // 2 + offset[1]))


@invocation(
    "invokeai_img_blend",
    title="Image Layer Blend",
    tags=["image", "blend", "layer", "alpha", "composite", "dodge", "burn"],
    category="image",
    version="1.2.0",
)
class InvokeImageBlendInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Blend an image over another one; the result has the size of the lower image."""

    layer_upper: ImageField = InputField(description="The upper image", ui_order=1)
    blend_mode: BLEND_MODES = InputField(default="Normal", description="How the images are blended", ui_order=2)
    opacity: float = InputField(
        default=1.0, ge=0, description="Opacity of the upper image; 1 leaves it unchanged", ui_order=3
    )
    mask: ImageField | None = InputField(
        default=None, description="White where the upper image shows, black where it does not", ui_order=4
    )
    fit_to_width: bool = InputField(default=False, description="Scale the upper image to the width", ui_order=5)
    fit_to_height: bool = InputField(default=True, description="Scale the upper image to the height", ui_order=6)
    layer_base: ImageField = InputField(description="The lower image", ui_order=7)
    color_space: BLEND_SPACES = InputField(
        default="RGB",
        description="Color space of blending; outside RGB most modes blend only the lightness",
        ui_order=8,
    )
    adaptive_gamut: float = InputField(
        default=0.0,
        ge=0,
        description="How far lightness may change for colors outside sRGB to keep their chroma",
        ui_order=9,
    )
    high_precision: bool = InputField(
        default=True, description="Whether to find the sRGB gamut boundary precisely", ui_order=10
    )

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Blend and save the image."""
        import numpy as np

        from invokeclone.nodes.images.pixels import blends, colors

        base = context.images.get_pil(self.layer_base.image_name, mode="RGBA")
        upper = context.images.get_pil(self.layer_upper.image_name, mode="RGBA")
        upper = center_in_frame(upper, base.size, (0, 0), width=self.fit_to_width, height=self.fit_to_height)
        above = colors.bytes_as_srgb(np.asarray(upper))
        above[..., 3] *= self.opacity
        if self.mask is not None:
            mask = context.images.get_pil(self.mask.image_name, mode="L")
            above[..., 3] *= colors.bytes_as_srgb(np.asarray(mask.resize(base.size)))
        above[..., 3] = above[..., 3].clip(0.0, 1.0)
        gamut = blends.Gamut(self.adaptive_gamut, colors.STEPS if self.high_precision else colors.FAST_STEPS)
        below = colors.bytes_as_srgb(np.asarray(base))
        blended = blends.composite(below, above, self.blend_mode, self.color_space, gamut)
        return ImageOutput.build(context.images.save(Image.fromarray(colors.srgb_as_bytes(blended))))


def parse_color(text: str) -> tuple[int, int, int]:
    """Return the color of a text: a CSS color, or red, green and blue with or without parentheses. Raises NodeError."""
    numbers = re.fullmatch(r"[(\[]?\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*[)\]]?", text.strip())
    css = f"rgb({','.join(numbers.groups())})" if numbers else text.strip()
    try:
        red, green, blue = ImageColor.getrgb(css)[:3]
    except ValueError as error:
        raise NodeError(f"not a color: {text!r}") from error
    if max(red, green, blue) > 255:  # noqa: PLR2004 - a byte
        raise NodeError(f"not a color: {text!r}")
    return red, green, blue


def remove_background(subject: Image.Image, key: str, threshold: int) -> Image.Image:
    """Return RGBA of a subject without its background.

    The background is the area near the color `key`, measured as the sum of channel differences; without a key it is
    the area connected to a corner and near its color. A subject with transparency is unchanged if there is no
    `key`.
    """
    import numpy as np
    from scipy import ndimage

    pixels = np.array(convert(subject, "RGBA"))
    colors = pixels[..., :3].astype(np.int32)
    if key.strip():
        pixels[np.abs(colors - parse_color(key)).sum(axis=-1) <= threshold, 3] = 0
    elif (pixels[..., 3] == 255).all():  # noqa: PLR2004 - opaque
        for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
            parts, _ = ndimage.label(np.abs(colors - colors[corner]).sum(axis=-1) <= threshold)
            pixels[parts == parts[corner], 3] = 0
    return Image.fromarray(pixels)


@invocation(
    "invokeai_img_composite",
    title="Image Compositor",
    tags=["image", "compose", "chroma", "key"],
    category="image",
    version="1.2.0",
)
class InvokeImageCompositorInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Cut out a subject and place it on another background."""

    image_subject: ImageField = InputField(description="The image with the subject")
    image_background: ImageField = InputField(description="The background; the result has its size")
    chroma_key: str = InputField(
        default="", description="Color of the subject's background; if empty, the area connected to its corners"
    )
    threshold: int = InputField(default=50, ge=0, description="Maximum difference to the background color")
    fill_x: bool = InputField(default=False, description="Scale the subject to the background's width")
    fill_y: bool = InputField(default=True, description="Scale the subject to the background's height")
    x_offset: int = InputField(default=0, description="Horizontal offset of the subject from the center, in pixels")
    y_offset: int = InputField(default=0, description="Vertical offset of the subject from the center, in pixels")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Compose and save the image. Raises NodeError when the key is not a color."""
        ground = context.images.get_pil(self.image_background.image_name, mode="RGBA")
        subject = remove_background(
            context.images.get_pil(self.image_subject.image_name), self.chroma_key, self.threshold
        )
        offset = self.x_offset, self.y_offset
        subject = center_in_frame(subject, ground.size, offset, width=self.fill_x, height=self.fill_y)
        return ImageOutput.build(context.images.save(Image.alpha_composite(ground, subject)))
