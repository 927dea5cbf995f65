"""Nodes that combine images: paste, multiply, apply masks, and derive masks."""

from PIL import Image, ImageChops, ImageOps

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, NodeError, invocation
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.sizes import check_pixels
from invokeclone.graph.vocabulary.fields import ColorField, ImageField, InputField, WithBoard, WithMetadata
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.kit.config.limits import DEFAULT_LIMITS, Limits
from invokeclone.kit.files.image_modes import convert, visible


def paste(
    base: Image.Image,
    image: Image.Image,
    keep: Image.Image | None,
    position: tuple[int, int],
    *,
    crop: bool,
    limits: Limits = DEFAULT_LIMITS,
) -> Image.Image:
    """Return RGBA of `image` over `base` at `position`, on a canvas that holds both, or cropped to `base`.

    `keep` is white where the base stays. Raises NodeError when its size differs from the image's, and SizeOverLimit
    for a canvas over the limits, before it is created.
    """
    if keep is not None and keep.size != image.size:
        message = f"the mask size {keep.width}×{keep.height} differs from the image size {image.width}×{image.height}"
        raise NodeError(message)
    x, y = position
    left, top = min(0, x), min(0, y)
    right, bottom = max(base.width, x + image.width), max(base.height, y + image.height)
    check_pixels(right - left, bottom - top, limits, "the canvas of both images")
    canvas = Image.new("RGBA", (right - left, bottom - top), (0, 0, 0, 0))
    canvas.paste(convert(base, "RGBA"), (-left, -top))
    canvas.paste(convert(image, "RGBA"), (x - left, y - top), None if keep is None else ImageOps.invert(keep))
    return canvas.crop((-left, -top, base.width - left, base.height - top)) if crop else canvas


@invocation("img_paste", title="Paste Image", tags=["image", "paste"], category="image", version="1.2.2")
class ImagePasteInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Paste an image over another one."""

    base_image: ImageField = InputField(description="The lower image")
    image: ImageField = InputField(description="The upper image")
    mask: ImageField | None = InputField(default=None, description="White where the lower image stays visible")
    x: int = InputField(default=0, description="Left edge of the upper image")
    y: int = InputField(default=0, description="Top edge of the upper image")
    crop: bool = InputField(default=False, description="Whether to crop to the lower image")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Paste and save the image."""
        base = context.images.get_pil(self.base_image.image_name, mode="RGBA")
        image = context.images.get_pil(self.image.image_name, mode="RGBA")
        keep = context.images.get_pil(self.mask.image_name, mode="L") if self.mask else None
        limits = context.config.get().limits
        result = paste(base, image, keep, (self.x, self.y), crop=self.crop, limits=limits)
        return ImageOutput.build(context.images.save(result))


@invocation("img_mul", title="Multiply Images", tags=["image", "multiply"], category="image", version="1.2.2")
class ImageMultiplyInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Multiply two images: white leaves the other image unchanged, black gives black."""

    image1: ImageField = InputField(description="The first image, whose mode the result has")
    image2: ImageField = InputField(description="The second image")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Multiply and save the image."""
        first = context.images.get_pil(self.image1.image_name)
        if first.mode not in {"L", "RGB", "RGBA"}:
            first = visible(first)
        second = convert(context.images.get_pil(self.image2.image_name), first.mode)
        return ImageOutput.build(context.images.save(ImageChops.multiply(first, second)))


@invocation("tomask", title="Mask from Alpha", tags=["image", "mask"], category="mask", version="1.2.2")
class MaskFromAlphaInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Create a mask from an image's last channel, which is alpha if present."""

    image: ImageField = InputField(description="The source image")
    invert: bool = InputField(default=False, description="Whether to invert the mask")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Extract and save the mask."""
        mask = convert(context.images.get_pil(self.image.image_name).split()[-1], "L")
        if self.invert:
            mask = ImageOps.invert(mask)
        return ImageOutput.build(context.images.save(mask, image_category=ImageCategory.MASK))


@invocation("mask_combine", title="Combine Masks", tags=["image", "mask", "multiply"], category="mask", version="1.2.2")
class MaskCombineInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Multiply two masks: the result is black where either is black."""

    mask1: ImageField = InputField(description="The first mask")
    mask2: ImageField = InputField(description="The second mask")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Combine and save the masks."""
        first = context.images.get_pil(self.mask1.image_name, mode="L")
        second = context.images.get_pil(self.mask2.image_name, mode="L")
        combined = ImageChops.multiply(first, second)
        return ImageOutput.build(context.images.save(combined, image_category=ImageCategory.MASK))


@invocation(
    "mask_from_id", title="Mask from Segmented Image", tags=["image", "mask", "id"], category="mask", version="1.0.1"
)
class MaskFromIDInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Create a mask that is white where a segmentation map has a color, within a tolerance."""

    image: ImageField = InputField(description="The segmentation map")
    color: ColorField = InputField(description="The color to look for")
    threshold: int = InputField(default=100, description="Maximum distance to the color in RGBA")
    invert: bool = InputField(default=False, description="Whether to invert the mask")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Create and save the mask."""
        import numpy as np

        pixels = np.asarray(context.images.get_pil(self.image.image_name, mode="RGBA"), dtype=np.int32)
        squares = ((pixels - np.array(self.color.tuple(), dtype=np.int32)) ** 2).sum(axis=-1)
        near = squares <= self.threshold**2 if self.threshold >= 0 else np.zeros(squares.shape, dtype=bool)
        mask = Image.fromarray(np.where(near ^ self.invert, 255, 0).astype(np.uint8))
        return ImageOutput.build(context.images.save(mask, image_category=ImageCategory.MASK))


@invocation(
    "apply_mask_to_image",
    title="Apply Mask to Image",
    tags=["image", "mask", "blend"],
    category="mask",
    version="1.0.0",
)
class ApplyMaskToImageInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Set the opacity of an image to a mask: white is opaque."""

    image: ImageField = InputField(description="The image to mask")
    mask: ImageField = InputField(description="The mask, of the same size")
    invert_mask: bool = InputField(default=False, description="Whether to invert the mask first")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Replace the transparency and save the image."""
        image = context.images.get_pil(self.image.image_name, mode="RGBA")
        mask = context.images.get_pil(self.mask.image_name, mode="L")
        if mask.size != image.size:
            message = (
                f"the mask size {mask.width}×{mask.height} differs from the image size {image.width}×{image.height}"
            )
            raise NodeError(message)
        image.putalpha(ImageOps.invert(mask) if self.invert_mask else mask)
        return ImageOutput.build(context.images.save(image))
