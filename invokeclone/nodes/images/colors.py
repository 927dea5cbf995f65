"""Nodes that work in perceptual color spaces: hue rotation, lightness, thresholds, dilation."""

from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, NodeError, invocation
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.vocabulary.fields import ImageField, InputField, WithBoard, WithMetadata
from invokeclone.kit.files.image_modes import visible
from invokeclone.nodes.images.filters import split_alpha, with_alpha

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HUE_SPACES = Literal[
    "HSV / HSL / RGB", "Okhsl", "Okhsv", "*Oklch / Oklab", "*LCh / CIELab", "*UPLab (w/CIELab_to_UPLab.icc)"
]
PARTS = {
    "HSV / HSL / RGB": "HSV (RGB)",
    "Okhsl": "Okhsl",
    "Okhsv": "Okhsv",
    "*Oklch / Oklab": "Oklch (Oklab)",
    "*LCh / CIELab": "LCh (CIELab)",
}
"""The spaces under the names that blending uses."""
FULL_CIRCLE = 360


def colors_of(context: InvocationContext, image: ImageField) -> "tuple[NDArray[np.float64], Image.Image | None]":
    """Return an image as sRGB (height, width, 3) from 0 to 1, and its transparency, if any."""
    import numpy as np

    from invokeclone.nodes.images.pixels import colors

    pixels, alpha = split_alpha(context.images.get_pil(image.image_name))
    return colors.bytes_as_srgb(np.asarray(pixels)), alpha


def save_colors(context: InvocationContext, srgb: "NDArray[np.float64]", alpha: Image.Image | None) -> ImageOutput:
    """Save colors and transparency as returned by `colors_of`."""
    from invokeclone.nodes.images.pixels import colors

    return ImageOutput.build(context.images.save(with_alpha(Image.fromarray(colors.srgb_as_bytes(srgb)), alpha)))


@invocation(
    "img_hue_adjust_oklch",
    title="Adjust Image Hue (Oklch)",
    tags=["image", "hue", "oklch"],
    category="image",
    version="1.0.0",
)
class OklchImageHueAdjustmentInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Rotate the hue of every color, preserving perceived lightness and transparency."""

    image: ImageField = InputField(description="The image to change")
    hue: int = InputField(default=0, description="Rotation in degrees, 0 to 360")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Rotate the hue and save the image."""
        from invokeclone.nodes.images.pixels import blends

        srgb, alpha = colors_of(context, self.image)
        rotated = blends.rotate_hue(srgb, self.hue % FULL_CIRCLE / FULL_CIRCLE, "Oklch (Oklab)", blends.Gamut())
        return save_colors(context, rotated, alpha)


@invocation(
    "invokeai_img_hue_adjust_plus",
    title="Adjust Image Hue Plus",
    tags=["image", "hue", "oklab", "cielab", "uplab", "lch", "hsv", "hsl", "lab"],
    category="image",
    version="1.2.0",
)
class InvokeAdjustImageHuePlusInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Rotate the hue of every color in a selectable color space, preserving transparency."""

    image: ImageField = InputField(description="The image to change")
    space: HUE_SPACES = InputField(
        default="HSV / HSL / RGB",
        description="The color space; UPLab is not supported because its profile is not included",
    )
    degrees: float = InputField(default=0.0, description="Rotation in degrees")
    preserve_lightness: bool = InputField(default=False, description="Whether to keep the CIELAB lightness")
    ok_adaptive_gamut: float = InputField(
        default=0.05,
        ge=0,
        description="How far lightness may change for colors outside sRGB to keep their chroma",
    )
    ok_high_precision: bool = InputField(default=True, description="Whether to find the sRGB gamut boundary precisely")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Rotate the hue and save the image. Raises NodeError for UPLab."""
        from invokeclone.nodes.images.pixels import blends, colors

        if self.space not in PARTS:
            raise NodeError("UPLab is not supported: the profile CIELab_to_UPLab.icc is not included")
        srgb, alpha = colors_of(context, self.image)
        gamut = blends.Gamut(self.ok_adaptive_gamut, colors.STEPS if self.ok_high_precision else colors.FAST_STEPS)
        rotated = blends.rotate_hue(srgb, self.degrees % FULL_CIRCLE / FULL_CIRCLE, PARTS[self.space], gamut)
        if self.preserve_lightness:
            rotated = blends.with_lightness(rotated, blends.lightness(srgb), blends.Gamut(0.0, gamut.steps))
        return save_colors(context, rotated, alpha)


@invocation(
    "unsharp_mask_oklab",
    title="Unsharp Mask (Oklab)",
    tags=["image", "unsharp_mask", "oklab"],
    category="image",
    version="1.0.0",
)
class OklabUnsharpMaskInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Sharpen the perceived lightness with an unsharp mask, preserving hue and transparency."""

    image: ImageField = InputField(description="The image to sharpen")
    radius: float = InputField(default=2, gt=0, description="Radius of the blur")
    strength: float = InputField(default=50, ge=0, description="Percentage of the difference to add")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Sharpen and save the image."""
        from scipy import ndimage

        from invokeclone.nodes.images.pixels import blends, colors

        srgb, alpha = colors_of(context, self.image)
        lab = colors.oklab_of(colors.linear_of(srgb))
        radius = min(self.radius, max(srgb.shape))
        blurred = ndimage.gaussian_filter(lab[..., 0], radius, mode="nearest")
        lab[..., 0] += (lab[..., 0] - blurred) * (self.strength / 100)
        lab[..., 0] = lab[..., 0].clip(0.0, 1.0)
        return save_colors(context, blends.Gamut().to_srgb(colors.linear_of_oklab(lab)), alpha)


@invocation(
    "invokeai_ealightness",
    title="Equivalent Achromatic Lightness",
    tags=["image", "channel", "mask", "cielab", "lab"],
    category="image",
    version="1.2.0",
)
class InvokeEquivalentAchromaticLightnessInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Create a gray image with the perceived lightness of the colors.

    Saturated colors look lighter than they measure.
    """

    image: ImageField = InputField(description="The image to convert")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Convert and save the image."""
        from invokeclone.nodes.images.pixels import blends, colors

        srgb, _ = colors_of(context, self.image)
        gray = blends.gray_of(colors.achromatic_lightness(srgb))
        return ImageOutput.build(context.images.save(Image.fromarray(colors.srgb_as_bytes(gray))))


@invocation(
    "invokeai_img_val_thresholds",
    title="Image Value Thresholds",
    tags=["image", "mask", "value", "threshold"],
    category="image",
    version="1.2.0",
)
class InvokeImageValueThresholdsInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Make values below one threshold black and values above another white, preserving transparency."""

    image: ImageField = InputField(description="The image to change")
    invert_output: bool = InputField(default=False, description="Whether to invert the result")
    renormalize_values: bool = InputField(
        default=False, description="Whether to rescale the values between the thresholds"
    )
    lightness_only: bool = InputField(default=False, description="Whether to change only the CIELAB lightness")
    threshold_upper: float = InputField(default=0.5, description="Threshold from which values become white, 0 to 1")
    threshold_lower: float = InputField(default=0.5, description="Threshold below which values become black, 0 to 1")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Apply the thresholds and save the image."""
        from invokeclone.nodes.images.pixels import blends

        srgb, alpha = colors_of(context, self.image)
        if not self.lightness_only:
            return save_colors(context, self._apply_thresholds(srgb), alpha)
        light = self._apply_thresholds(blends.lightness(srgb))
        return save_colors(context, blends.with_lightness(srgb, light, blends.Gamut()), alpha)

    def _apply_thresholds(self, values: "NDArray[np.float64]") -> "NDArray[np.float64]":
        import numpy as np

        low, high = sorted((self.threshold_lower, self.threshold_upper))
        between = (values - low) / (high - low) if self.renormalize_values and high > low else values
        limited = np.select([values >= high, values < low], [1.0, 0.0], between)
        return 1.0 - limited if self.invert_output else limited


@invocation(
    "invokeai_img_dilate_erode",
    title="Image Dilate or Erode",
    tags=["image", "mask", "dilate", "erode", "expand", "contract", "mask"],
    category="image",
    version="1.3.0",
)
class InvokeImageDilateOrErodeInvocation(BaseInvocation, WithMetadata):
    """Grow light (or opaque) areas over dark ones, or the other way round, with a rectangular kernel."""

    image: ImageField = InputField(description="The image to change")
    lightness_only: bool = InputField(
        default=False, description="Whether to change only the CIELAB lightness instead of each channel"
    )
    radius_w: int = InputField(default=4, ge=0, description="Horizontal radius in pixels")
    radius_h: int = InputField(default=4, ge=0, description="Vertical radius in pixels")
    mode: Literal["Dilate", "Erode"] = InputField(default="Dilate", description="Whether to grow light or dark areas")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Dilate or erode, and save the image; grayscale images stay grayscale."""
        import numpy as np

        from invokeclone.nodes.images.pixels import blends

        if self.lightness_only:
            srgb, alpha = colors_of(context, self.image)
            light = self._dilate_or_erode(blends.lightness(srgb))
            return save_colors(context, blends.with_lightness(srgb, light, blends.Gamut()), alpha)
        image = context.images.get_pil(self.image.image_name)
        if image.mode not in {"L", "RGB", "RGBA"}:
            image = visible(image)
        bands = [Image.fromarray(self._dilate_or_erode(np.asarray(band))) for band in image.split()]
        return ImageOutput.build(context.images.save(Image.merge(image.mode, bands)))

    def _dilate_or_erode(self, values: "NDArray[Any]") -> "NDArray[Any]":
        """Return the maximum or minimum values (height, width) around each pixel."""
        from scipy import ndimage

        height, width = values.shape
        size = 2 * min(self.radius_h, height) + 1, 2 * min(self.radius_w, width) + 1
        change = ndimage.maximum_filter if self.mode == "Dilate" else ndimage.minimum_filter
        grown: NDArray[Any] = change(values, size=size, mode="nearest")
        return grown
