"""Nodes that paste generated images into the image on the canvas. Masks are black where the new image shows."""

from PIL import Image, ImageChops, ImageFilter, ImageOps

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, NodeError, invocation
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.vocabulary.fields import ImageField, InputField, WithBoard, WithMetadata
from invokeclone.graph.vocabulary.taxonomy import Classification
from invokeclone.nodes.images.compose import paste


def blur_outwards(mask: Image.Image, blur: int) -> Image.Image:
    """Return a gray mask with its edge blurred outwards, so that black stays black."""
    import numpy as np

    from invokeclone.nodes.images.pixels import masks

    if blur == 0:
        return mask
    return Image.fromarray(masks.erode(np.asarray(mask), blur)).filter(ImageFilter.GaussianBlur(blur))


def _same_size(old: Image.Image, new: Image.Image) -> None:
    if old.size != new.size:
        message = f"the images differ in size: {old.width}×{old.height} and {new.width}×{new.height}"
        raise NodeError(message)


@invocation(
    "canvas_paste_back", title="Canvas Paste Back", tags=["image", "combine"], category="canvas", version="1.0.1"
)
class CanvasPasteBackInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Paste a new image over an old one where a mask is black."""

    source_image: ImageField = InputField(description="The old image")
    target_image: ImageField = InputField(description="The new image, of the same size")
    mask: ImageField = InputField(description="The mask: black where the new image shows")
    mask_blur: int = InputField(default=0, ge=0, description="Width of the outward blur of the edge, in pixels")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Paste and save the image. Raises NodeError when the sizes differ."""
        old = context.images.get_pil(self.source_image.image_name, mode="RGBA")
        new = context.images.get_pil(self.target_image.image_name, mode="RGBA")
        _same_size(old, new)
        mask = blur_outwards(context.images.get_pil(self.mask.image_name, mode="L"), self.mask_blur)
        return ImageOutput.build(context.images.save(paste(old, new, mask, (0, 0), crop=True)))


@invocation(
    "canvas_v2_mask_and_crop",
    title="Canvas V2 Mask and Crop",
    tags=["image", "mask", "id"],
    category="canvas",
    version="1.0.0",
    classification=Classification.Deprecated,
)
class CanvasV2MaskAndCropInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Crop a new image to the black part of a mask, and paste it over the old one if given."""

    source_image: ImageField | None = InputField(default=None, description="The old image; transparent if not given")
    generated_image: ImageField = InputField(description="The new image")
    mask: ImageField = InputField(description="The mask: black where the new image shows")
    mask_blur: int = InputField(default=0, ge=0, description="Width of the outward blur of the edge, in pixels")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Crop or paste, and save the image. Raises NodeError when the sizes differ."""
        new = context.images.get_pil(self.generated_image.image_name, mode="RGBA")
        mask = blur_outwards(context.images.get_pil(self.mask.image_name, mode="L"), self.mask_blur)
        if self.source_image is not None:
            old = context.images.get_pil(self.source_image.image_name, mode="RGBA")
            _same_size(old, new)
            return ImageOutput.build(context.images.save(paste(old, new, mask, (0, 0), crop=True)))
        _same_size(mask, new)
        new.putalpha(ImageChops.multiply(new.getchannel("A"), ImageOps.invert(mask)))
        return ImageOutput.build(context.images.save(new))
