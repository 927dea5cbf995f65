"""Nodes that fill holes in images, given by transparency or a mask, as a starting point for a model."""

from PIL import Image

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, NodeError, invocation
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.sizes import check_pixels
from invokeclone.graph.vocabulary.fields import ImageField, InputField, WithBoard, WithMetadata
from invokeclone.kit.files.image_modes import convert
from invokeclone.nodes.images.size import PIL_RESAMPLING_MAP, PIL_RESAMPLING_MODES

HALF_OPAQUE = 128


def fill_from_edges(image: Image.Image, known_mask: Image.Image) -> Image.Image:
    """Return RGB of an image with colors flowing into the black areas of the gray image `known_mask`."""
    import numpy as np

    from invokeclone.nodes.images.pixels import infill

    share = np.asarray(known_mask, dtype=np.float32) / np.float32(255)
    return Image.fromarray(infill.fill_smoothly(np.asarray(convert(image, "RGB")), share))


@invocation("infill_tile", title="Tile Infill", tags=["image", "inpaint"], category="inpaint", version="1.2.3")
class InfillTileInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Fill transparent areas with random square tiles from the rest of the image."""

    image: ImageField = InputField(description="The image to fill")
    tile_size: int = InputField(default=32, ge=1, description="Side of the squares in pixels")
    seed: int = InputField(default=0, ge=0, le=4294967295, description="Random seed")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Fill and save the image; an image without an opaque pixel is unchanged."""
        import numpy as np

        from invokeclone.nodes.images.pixels import infill

        image = context.images.get_pil(self.image.image_name, mode="RGBA")
        ground = infill.tile_fill(np.asarray(image), self.tile_size, self.seed)
        if ground is None:
            context.logger.warning("Infill skipped: the image has no opaque pixel")
            return ImageOutput.build(context.images.save(image))
        return ImageOutput.build(context.images.save(Image.alpha_composite(Image.fromarray(ground), image)))


@invocation("infill_cv2", title="CV2 Infill", tags=["image", "inpaint"], category="inpaint", version="1.2.2")
class CV2InfillInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Fill transparent areas with colors that flow in from the edge. Does not need OpenCV."""

    image: ImageField = InputField(description="The image to fill")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Fill and save the image."""
        image = context.images.get_pil(self.image.image_name, mode="RGBA")
        return ImageOutput.build(context.images.save(fill_from_edges(image, image.getchannel("A"))))


@invocation(
    "infill_patchmatch", title="PatchMatch Infill", tags=["image", "inpaint"], category="inpaint", version="1.2.2"
)
class InfillPatchMatchInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Fill transparent areas with matching patches from the rest of the image."""

    image: ImageField = InputField(description="The image to fill")
    downscale: float = InputField(default=2.0, gt=0, description="Factor by which the image is downscaled for filling")
    resample_mode: PIL_RESAMPLING_MODES = InputField(default="bicubic", description="Resampling filter")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Fill and save the image; an image without an opaque pixel is unchanged."""
        import numpy as np

        from invokeclone.nodes.images.pixels import patchmatch

        image = context.images.get_pil(self.image.image_name, mode="RGBA")
        resample = PIL_RESAMPLING_MAP[self.resample_mode]
        small = image
        if self.downscale != 1:
            size = max(1, int(image.width / self.downscale)), max(1, int(image.height / self.downscale))
            check_pixels(*size, context.config.get().limits, f"node {self.id} ({self.get_type()})")
            small = image.resize(size, resample)
        hole = np.asarray(small.getchannel("A")) < HALF_OPAQUE
        if hole.all():
            context.logger.warning("Infill skipped: the image has no opaque pixel")
            return ImageOutput.build(context.images.save(image))
        result = Image.fromarray(patchmatch.fill_hole(np.asarray(convert(small, "RGB")), hole))
        ground = result if result.size == image.size else result.resize(image.size, resample)
        return ImageOutput.build(context.images.save(Image.alpha_composite(convert(ground, "RGBA"), image)))


@invocation("cv_inpaint", title="OpenCV Inpaint", tags=["opencv", "inpaint"], category="inpaint", version="1.3.1")
class CvInpaintInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Replace the parts of an image where a mask is not white by colors that flow in from around.

    Does not need OpenCV.
    """

    image: ImageField = InputField(description="The image to inpaint")
    mask: ImageField = InputField(description="The mask: black is replaced, white stays")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Fill and save the image. Raises NodeError when the sizes differ."""
        image = context.images.get_pil(self.image.image_name, mode="RGB")
        mask = context.images.get_pil(self.mask.image_name, mode="L")
        if mask.size != image.size:
            message = (
                f"the mask size {mask.width}×{mask.height} differs from the image size {image.width}×{image.height}"
            )
            raise NodeError(message)
        stays = mask.point([0] * 255 + [255])
        return ImageOutput.build(context.images.save(fill_from_edges(image, stays)))
