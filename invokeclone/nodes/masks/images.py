"""Nodes for masks as grayscale images: fade, find edges, measure."""

from PIL import Image, ImageFilter, ImageOps

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, NodeError, invocation
from invokeclone.graph.invocations.outputs import BoundingBoxOutput, ImageOutput
from invokeclone.graph.vocabulary.fields import (
    BoundingBoxField,
    ColorField,
    ImageField,
    InputField,
    WithBoard,
    WithMetadata,
)
from invokeclone.graph.vocabulary.taxonomy import ImageCategory


@invocation(
    "expand_mask_with_fade", title="Expand Mask with Fade", tags=["image", "mask"], category="mask", version="1.0.1"
)
class ExpandMaskWithFadeInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Expand the black area of a mask, fading to white."""

    mask: ImageField = InputField(description="The mask: black changes, white stays")
    threshold: int = InputField(default=0, ge=0, le=255, description="Maximum value that counts as black")
    fade_size_px: int = InputField(
        default=32, ge=0, description="Width of the fade in pixels; 0 leaves the mask unchanged"
    )

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Fade and save the mask."""
        import numpy as np

        from invokeclone.nodes.images.pixels import masks

        mask = np.asarray(context.images.get_pil(self.mask.image_name, mode="L"))
        faded = Image.fromarray(masks.fade_edges(mask, self.threshold, self.fade_size_px))
        return ImageOutput.build(context.images.save(faded, image_category=ImageCategory.MASK))


@invocation(
    "get_image_mask_bounding_box",
    title="Get Image Mask Bounding Box",
    tags=["mask"],
    category="mask",
    version="1.0.0",
)
class GetMaskBoundingBoxInvocation(BaseInvocation):
    """Find the smallest rectangle that contains all pixels of one color."""

    mask: ImageField = InputField(description="The mask")
    margin: int = InputField(default=0, description="Margin at each side in pixels, clipped to the image")
    mask_color: ColorField = InputField(default=ColorField(r=255, g=255, b=255, a=255), description="The color to find")

    def invoke(self, context: InvocationContext) -> BoundingBoxOutput:
        """Return the rectangle; it is empty at the origin when there is no such pixel."""
        import numpy as np

        from invokeclone.nodes.images.pixels import masks

        pixels = np.asarray(context.images.get_pil(self.mask.image_name, mode="RGBA"))
        matches = (pixels == np.array(self.mask_color.tuple(), dtype=np.uint8)).all(axis=-1)
        left, top, right, bottom = masks.bounds(matches, self.margin)
        return BoundingBoxOutput(bounding_box=BoundingBoxField(x_min=left, x_max=right, y_min=top, y_max=bottom))


@invocation("mask_edge", title="Mask Edge", tags=["image", "mask", "inpaint"], category="mask", version="1.2.2")
class MaskEdgeInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Create a mask whose black area is the edge of another mask."""

    image: ImageField = InputField(description="The source mask")
    edge_size: int = InputField(description="Width of the edge in pixels")
    edge_blur: int = InputField(description="Blur radius of the edge in pixels")
    low_threshold: int = InputField(description="Gradient above which an edge continues")
    high_threshold: int = InputField(description="Gradient above which an edge starts")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Find, widen and blur the edge, and save the mask. Raises NodeError when a width is negative."""
        import numpy as np

        from invokeclone.nodes.images.pixels import edges, masks

        if self.edge_size < 0 or self.edge_blur < 0:
            raise NodeError("edge_size and edge_blur must not be negative")
        mask = np.asarray(context.images.get_pil(self.image.image_name, mode="L"))
        outline = np.maximum(masks.between(mask), edges.canny(mask, self.low_threshold, self.high_threshold))
        edge = Image.fromarray(masks.dilate(outline, self.edge_size // 2))
        if self.edge_blur:
            edge = edge.filter(ImageFilter.BoxBlur(self.edge_blur))
        return ImageOutput.build(context.images.save(ImageOps.invert(edge), image_category=ImageCategory.MASK))
