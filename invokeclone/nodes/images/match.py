"""The node that matches the colors of one image to another."""

from typing import Literal

from PIL import Image

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, NodeError, invocation
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.vocabulary.fields import ImageField, InputField, WithBoard, WithMetadata
from invokeclone.kit.files.image_modes import convert
from invokeclone.nodes.images.filters import split_alpha, with_alpha

MATCHED_CHANNELS = {"RGB": (0, 1, 2), "YCbCr": (0, 1, 2), "YCbCr-Chroma": (1, 2), "YCbCr-Luma": (0,)}
"""The channels of each space that are matched."""


def match_colors(base: Image.Image, reference: Image.Image, space: str) -> Image.Image:
    """Return RGB of `base` with the histogram of each selected channel matched to `reference`."""
    import numpy as np

    from invokeclone.nodes.images.pixels import levels

    mode = "RGB" if space == "RGB" else "YCbCr"
    bands, reference_bands = list(convert(base, mode).split()), convert(reference, mode).split()
    for channel in MATCHED_CHANNELS[space]:
        bands[channel] = Image.fromarray(
            levels.match_histogram(np.asarray(bands[channel]), np.asarray(reference_bands[channel]))
        )
    return convert(Image.merge(mode, bands), "RGB")


@invocation("color_correct", title="Color Correct", tags=["image", "color"], category="image", version="2.0.0")
class ColorCorrectInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Match an image's colors to those of another image, preserving transparency."""

    base_image: ImageField = InputField(description="The image to correct")
    color_reference: ImageField = InputField(description="The image with the desired colors, of any size")
    mask: ImageField | None = InputField(default=None, description="White where the image is unchanged")
    colorspace: Literal["RGB", "YCbCr", "YCbCr-Chroma", "YCbCr-Luma"] = InputField(
        default="RGB", description="The channels to match", title="Color Space"
    )

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Match the colors and save the image. Raises NodeError when the mask has another size."""
        base, alpha = split_alpha(context.images.get_pil(self.base_image.image_name))
        reference = context.images.get_pil(self.color_reference.image_name, mode="RGB")
        corrected = match_colors(base, reference, self.colorspace)
        if self.mask is not None:
            mask = context.images.get_pil(self.mask.image_name, mode="L")
            if mask.size != base.size:
                message = (
                    f"the mask size {mask.width}×{mask.height} differs from the image size {base.width}×{base.height}"
                )
                raise NodeError(message)
            corrected.paste(base, mask=mask)
        return ImageOutput.build(context.images.save(with_alpha(corrected, alpha)))
