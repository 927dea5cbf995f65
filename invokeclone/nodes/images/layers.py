"""Images laid over each other: as layers blended in many ways, or as a subject before another background."""

import re
from typing import Literal

from PIL import Image, ImageColor

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, NodeError, invocation
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.vocabulary.fields import ImageField, InputField, WithBoard, WithMetadata
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
    """Return a size brought to a frame's width or height in proportion, or to both without."""
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
    """Return RGBA of a frame's size with the image, fitted to it, in the middle, moved by `offset`."""
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
    """Blend an image over another one; the result has the lower one's size."""

    layer_upper: ImageField = InputField(description="The image above", ui_order=1)
    blend_mode: BLEND_MODES = InputField(default="Normal", description="How the images are blended", ui_order=2)
    opacity: float = InputField(default=1.0, ge=0, description="Opacity of the image above; 1 is its own", ui_order=3)
    mask: ImageField | None = InputField(
        default=None, description="White where the image above shows, black where it does not", ui_order=4
    )
    fit_to_width: bool = InputField(default=False, description="Bring the image above to the width", ui_order=5)
    fit_to_height: bool = InputField(default=True, description="Bring the image above to the height", ui_order=6)
    layer_base: ImageField = InputField(description="The image below", ui_order=7)
    color_space: BLEND_SPACES = InputField(
        default="RGB",
        description="Where the values are blended; other than in RGB, of most modes the lightness alone",
        ui_order=8,
    )
    adaptive_gamut: float = InputField(
        default=0.0,
        ge=0,
        description="How far the lightness may give way where sRGB has no such full color",
        ui_order=9,
    )
    high_precision: bool = InputField(
        default=True, description="Whether to find the limits of sRGB exactly", ui_order=10
    )

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Blend and save."""
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
    """Return the color that a text names: a CSS color, or red, green and blue with or without brackets. Raises NodeError."""
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

    That is all that is near the color `key`, as a sum of the channels' differences; without one it is what is joined to a
    corner and near its color. A subject with transparency is cut out already when there is no `key`.
    """
    import numpy as np
    from scipy import ndimage

    pixels = np.array(subject.convert("RGBA"))
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
    """Cut a subject out of its background and put it before another one."""

    image_subject: ImageField = InputField(description="The image with the subject")
    image_background: ImageField = InputField(description="The background; the result has its size")
    chroma_key: str = InputField(
        default="", description="Color of the subject's background; empty for what is joined to its corners"
    )
    threshold: int = InputField(default=50, ge=0, description="How far a color may be off from the background's")
    fill_x: bool = InputField(default=False, description="Bring the subject to the background's width")
    fill_y: bool = InputField(default=True, description="Bring the subject to the background's height")
    x_offset: int = InputField(default=0, description="How far the subject is right of the middle, in pixels")
    y_offset: int = InputField(default=0, description="How far the subject is below the middle, in pixels")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Cut out, put together and save; NodeError when the key is not a color."""
        ground = context.images.get_pil(self.image_background.image_name, mode="RGBA")
        subject = remove_background(
            context.images.get_pil(self.image_subject.image_name), self.chroma_key, self.threshold
        )
        offset = self.x_offset, self.y_offset
        subject = center_in_frame(subject, ground.size, offset, width=self.fill_x, height=self.fill_y)
        return ImageOutput.build(context.images.save(Image.alpha_composite(ground, subject)))
