"""Nodes for masks as tensors (1, height, width).

Values are true, or 1, inside the region of a prompt or adapter, and false, or 0, outside.
"""

from typing import TYPE_CHECKING

from PIL import Image

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, NodeError, invocation
from invokeclone.graph.invocations.outputs import ImageOutput, MaskOutput
from invokeclone.graph.vocabulary.fields import ImageField, InputField, TensorField, WithBoard, WithMetadata
from invokeclone.graph.vocabulary.taxonomy import ImageCategory

if TYPE_CHECKING:
    import torch


def _flat(mask: "torch.Tensor") -> "torch.Tensor":
    """Return a mask as (height, width). Raises NodeError when it has more than one layer."""
    if mask.dim() < 2 or any(side != 1 for side in mask.shape[:-2]):  # noqa: PLR2004 - height and width
        raise NodeError(f"a mask must have the shape (1, height, width), not {tuple(mask.shape)}")
    return mask.reshape(mask.shape[-2:])


def _gray(mask: "torch.Tensor") -> Image.Image:
    """Return a boolean mask, or one from 0 to 1, as a grayscale image."""
    values = _flat(mask).float().clamp(0.0, 1.0).mul(255.0).round()
    return Image.fromarray(values.cpu().numpy().astype("uint8"))


def _save_mask(context: InvocationContext, mask: "torch.Tensor") -> MaskOutput:
    """Save a mask (height, width) with a leading dimension."""
    height, width = mask.shape
    name = context.tensors.save(mask[None].contiguous())
    return MaskOutput(mask=TensorField(tensor_name=name), width=width, height=height)


@invocation("rectangle_mask", title="Create Rectangle Mask", tags=["conditioning"], category="mask", version="1.0.1")
class RectangleMaskInvocation(BaseInvocation, WithMetadata):
    """Create a mask that is true in a rectangle, which is clipped to the mask."""

    width: int = InputField(description="Width of the mask in pixels")
    height: int = InputField(description="Height of the mask in pixels")
    x_left: int = InputField(description="Left edge of the rectangle, inclusive")
    y_top: int = InputField(description="Top edge of the rectangle, inclusive")
    rectangle_width: int = InputField(description="Width of the rectangle")
    rectangle_height: int = InputField(description="Height of the rectangle")

    def invoke(self, context: InvocationContext) -> MaskOutput:
        """Create and save the mask. Raises NodeError when it has no area."""
        import torch

        if self.width < 1 or self.height < 1:
            raise NodeError(f"a mask of {self.width}×{self.height} has no area")
        mask = torch.zeros(self.height, self.width, dtype=torch.bool)
        right, bottom = max(0, self.x_left + self.rectangle_width), max(0, self.y_top + self.rectangle_height)
        mask[max(0, self.y_top) : bottom, max(0, self.x_left) : right] = True
        return _save_mask(context, mask)


@invocation(
    "alpha_mask_to_tensor", title="Alpha Mask to Tensor", tags=["conditioning"], category="mask", version="1.0.0"
)
class AlphaMaskToTensorInvocation(BaseInvocation):
    """Create a mask that is true where an image is not fully transparent."""

    image: ImageField = InputField(description="The source image")
    invert: bool = InputField(default=False, description="Whether to invert the mask")

    def invoke(self, context: InvocationContext) -> MaskOutput:
        """Create and save the mask."""
        import numpy as np
        import torch

        alpha = np.asarray(context.images.get_pil(self.image.image_name, mode="RGBA").getchannel("A"))
        return _save_mask(context, torch.from_numpy((alpha > 0) ^ self.invert))


@invocation(
    "image_mask_to_tensor", title="Image Mask to Tensor", tags=["conditioning"], category="mask", version="1.0.0"
)
class ImageMaskToTensorInvocation(BaseInvocation, WithMetadata):
    """Create a mask that is true where the grayscale image is at least as bright as a threshold."""

    image: ImageField = InputField(description="The source image")
    cutoff: int = InputField(default=128, ge=0, le=255, description="Minimum brightness that counts as true")
    invert: bool = InputField(default=False, description="Whether to invert the mask")

    def invoke(self, context: InvocationContext) -> MaskOutput:
        """Create and save the mask."""
        import numpy as np
        import torch

        gray = np.asarray(context.images.get_pil(self.image.image_name, mode="L"))
        return _save_mask(context, torch.from_numpy((gray >= self.cutoff) ^ self.invert))


@invocation("invert_tensor_mask", title="Invert Tensor Mask", tags=["conditioning"], category="mask", version="1.1.0")
class InvertTensorMaskInvocation(BaseInvocation):
    """Invert a mask: true becomes false, a value x between 0 and 1 becomes 1 - x."""

    mask: TensorField = InputField(description="The mask to invert")

    def invoke(self, context: InvocationContext) -> MaskOutput:
        """Invert and save the mask."""
        import torch

        mask = _flat(context.tensors.load(self.mask.tensor_name))
        return _save_mask(context, ~mask if mask.dtype == torch.bool else 1 - mask)


@invocation("tensor_mask_to_image", title="Tensor Mask to Image", tags=["mask"], category="mask", version="1.1.0")
class MaskTensorToImageInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Convert a mask to a grayscale image: white is true."""

    mask: TensorField = InputField(description="The mask to convert")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Convert and save the mask."""
        mask = _gray(context.tensors.load(self.mask.tensor_name))
        return ImageOutput.build(context.images.save(mask, image_category=ImageCategory.MASK))


@invocation(
    "apply_tensor_mask_to_image",
    title="Apply Tensor Mask to Image",
    tags=["mask"],
    category="mask",
    version="1.0.0",
)
class ApplyMaskTensorToImageInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Make an image transparent where a mask is false."""

    mask: TensorField = InputField(description="The mask, of the same size")
    image: ImageField = InputField(description="The image to mask")
    invert: bool = InputField(default=False, description="Whether to invert the mask first")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Replace the transparency and save the image. Raises NodeError when the sizes differ."""
        image = context.images.get_pil(self.image.image_name, mode="RGBA")
        mask = _gray(context.tensors.load(self.mask.tensor_name))
        if mask.size != image.size:
            message = (
                f"the mask size {mask.width}×{mask.height} differs from the image size {image.width}×{image.height}"
            )
            raise NodeError(message)
        image.putalpha(mask.point([255 - value for value in range(256)]) if self.invert else mask)
        return ImageOutput.build(context.images.save(image))
