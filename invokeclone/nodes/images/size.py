"""Nodes that scale, crop and pad images."""

from typing import Literal, get_args

from PIL import Image

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import (
    BaseInvocation,
    BaseInvocationOutput,
    NodeError,
    invocation,
    invocation_output,
)
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.sizes import check_pixels
from invokeclone.graph.vocabulary.fields import (
    BoundingBoxField,
    ImageField,
    InputField,
    OutputField,
    WithBoard,
    WithMetadata,
)
from invokeclone.graph.vocabulary.taxonomy import Classification
from invokeclone.kit.files.image_modes import convert

PIL_RESAMPLING_MODES = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

PIL_RESAMPLING_MAP = {name: Image.Resampling[name.upper()] for name in get_args(PIL_RESAMPLING_MODES)}

CLEAR = (0, 0, 0, 0)


@invocation("img_resize", title="Resize Image", tags=["image", "resize"], category="image", version="1.2.2")
class ImageResizeInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Resize an image."""

    image: ImageField = InputField(description="The image to resize")
    width: int = InputField(default=512, gt=0, description="New width in pixels")
    height: int = InputField(default=512, gt=0, description="New height in pixels")
    resample_mode: PIL_RESAMPLING_MODES = InputField(default="bicubic", description="Resampling filter")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Resize and save the image."""
        image = context.images.get_pil(self.image.image_name)
        resized = image.resize((self.width, self.height), resample=PIL_RESAMPLING_MAP[self.resample_mode])
        return ImageOutput.build(context.images.save(resized))


@invocation("img_scale", title="Scale Image", tags=["image", "scale"], category="image", version="1.2.2")
class ImageScaleInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Scale an image; the new size is rounded down."""

    image: ImageField = InputField(description="The image to scale")
    scale_factor: float = InputField(default=2.0, gt=0, description="Factor for both sides")
    resample_mode: PIL_RESAMPLING_MODES = InputField(default="bicubic", description="Resampling filter")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Scale and save the image."""
        image = context.images.get_pil(self.image.image_name)
        size = int(image.width * self.scale_factor), int(image.height * self.scale_factor)
        check_pixels(*size, context.config.get().limits, f"node {self.id} ({self.get_type()})")
        resized = image.resize(size, resample=PIL_RESAMPLING_MAP[self.resample_mode])
        return ImageOutput.build(context.images.save(resized))


def paste_on_canvas(image: Image.Image, size: tuple[int, int], position: tuple[int, int]) -> Image.Image:
    """Return a transparent RGBA canvas of `size` with `image` at `position`, cropped to the canvas."""
    canvas = Image.new("RGBA", size, CLEAR)
    canvas.paste(convert(image, "RGBA"), position)
    return canvas


@invocation("img_crop", title="Crop Image", tags=["image", "crop"], category="image", version="1.2.2")
class ImageCropInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Crop an image to a rectangle; parts outside the image are transparent."""

    image: ImageField = InputField(description="The image to crop")
    x: int = InputField(default=0, description="Left edge of the rectangle")
    y: int = InputField(default=0, description="Top edge of the rectangle")
    width: int = InputField(default=512, gt=0, description="Width of the rectangle")
    height: int = InputField(default=512, gt=0, description="Height of the rectangle")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Crop and save the image."""
        image = context.images.get_pil(self.image.image_name)
        return ImageOutput.build(
            context.images.save(paste_on_canvas(image, (self.width, self.height), (-self.x, -self.y)))
        )


@invocation(
    "img_pad_crop", title="Center Pad or Crop Image", tags=["image", "pad", "crop"], category="image", version="1.0.0"
)
class CenterPadCropInvocation(BaseInvocation):
    """Add transparent pixels at each side, or crop with negative numbers."""

    image: ImageField = InputField(description="The image to pad or crop")
    left: int = InputField(default=0, description="Pixels to add on the left")
    right: int = InputField(default=0, description="Pixels to add on the right")
    top: int = InputField(default=0, description="Pixels to add at the top")
    bottom: int = InputField(default=0, description="Pixels to add at the bottom")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Pad or crop, and save the image. Raises NodeError when nothing is left."""
        image = context.images.get_pil(self.image.image_name)
        size = image.width + self.left + self.right, image.height + self.top + self.bottom
        if min(size) <= 0:
            message = f"the cropped image would be empty: {size[0]}×{size[1]}"
            raise NodeError(message)
        check_pixels(*size, context.config.get().limits, f"node {self.id} ({self.get_type()})")
        return ImageOutput.build(context.images.save(paste_on_canvas(image, size, (self.left, self.top))))


@invocation(
    "crop_image_to_bounding_box",
    title="Crop Image to Bounding Box",
    tags=["image", "crop"],
    category="image",
    version="1.0.0",
)
class CropImageToBoundingBoxInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Crop an image to a bounding box; without one, to its non-empty area."""

    image: ImageField = InputField(description="The image to crop")
    bounding_box: BoundingBoxField | None = InputField(default=None, description="The area to keep")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Crop and save the image."""
        image = context.images.get_pil(self.image.image_name)
        box = self.bounding_box.tuple() if self.bounding_box else image.getbbox()
        return ImageOutput.build(context.images.save(image.crop(box) if box else image))


@invocation(
    "paste_image_into_bounding_box",
    title="Paste Image into Bounding Box",
    tags=["image", "crop"],
    category="image",
    version="1.0.0",
)
class PasteImageIntoBoundingBoxInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Paste an image into a bounding box of the same size in another image."""

    source_image: ImageField = InputField(description="The image to paste")
    target_image: ImageField = InputField(description="The image to paste into")
    bounding_box: BoundingBoxField = InputField(description="The target area")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Paste and save the image. Raises NodeError when the box has another size or exceeds the target."""
        source = context.images.get_pil(self.source_image.image_name, mode="RGBA")
        target = context.images.get_pil(self.target_image.image_name, mode="RGBA")
        box = self.bounding_box
        if (box.x_max - box.x_min, box.y_max - box.y_min) != source.size:
            message = f"the bounding box {box.tuple()} does not match the image size {source.width}×{source.height}"
            raise NodeError(message)
        if min(box.x_min, box.y_min) < 0 or box.x_max > target.width or box.y_max > target.height:
            message = f"the bounding box {box.tuple()} exceeds the target size {target.width}×{target.height}"
            raise NodeError(message)
        target.paste(source, box.tuple(), source)
        return ImageOutput.build(context.images.save(target))


@invocation_output("image_panel_coordinate_output")
class ImagePanelCoordinateOutput(BaseInvocationOutput):
    """Position and size of a panel."""

    x_left: int = OutputField(description="Left edge of the panel")
    y_top: int = OutputField(description="Top edge of the panel")
    width: int = OutputField(description="Width of the panel")
    height: int = OutputField(description="Height of the panel")


@invocation(
    "image_panel_layout",
    title="Image Panel Layout",
    tags=["image", "panel", "layout"],
    category="canvas",
    version="1.0.0",
    classification=Classification.Prototype,
)
class ImagePanelLayoutInvocation(BaseInvocation):
    """Return the position of a panel in a grid; an uneven division leaves a remainder at the right and bottom."""

    width: int = InputField(description="Width of the whole grid")
    height: int = InputField(description="Height of the whole grid")
    num_cols: int = InputField(default=1, ge=1, description="Number of columns")
    num_rows: int = InputField(default=1, ge=1, description="Number of rows")
    panel_col_idx: int = InputField(default=0, ge=0, description="Column of the panel, from 0")
    panel_row_idx: int = InputField(default=0, ge=0, description="Row of the panel, from 0")

    def invoke(self, context: InvocationContext) -> ImagePanelCoordinateOutput:
        """Return the position. Raises NodeError when there is no such panel."""
        if self.panel_col_idx >= self.num_cols or self.panel_row_idx >= self.num_rows:
            message = (
                f"there is no panel ({self.panel_col_idx}, {self.panel_row_idx}) in {self.num_cols}×{self.num_rows}"
            )
            raise NodeError(message)
        width, height = self.width // self.num_cols, self.height // self.num_rows
        return ImagePanelCoordinateOutput(
            x_left=self.panel_col_idx * width, y_top=self.panel_row_idx * height, width=width, height=height
        )
