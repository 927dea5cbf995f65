"""Nodes that reference, collect, create, save, show and convert images."""

from typing import Literal

from PIL import Image

from invokeclone.graph.context import ImageMode, InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import ImageCollectionOutput, ImageOutput
from invokeclone.graph.vocabulary.fields import (
    ColorField,
    FieldDescriptions,
    ImageField,
    Input,
    InputField,
    WithBoard,
    WithMetadata,
)
from invokeclone.kit.files.image_modes import convert


def convert_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return `image` in `mode`."""
    return convert(image, mode)


@invocation("image", title="Image Primitive", tags=["primitives", "image"], category="primitives", version="1.0.2")
class ImageInvocation(BaseInvocation):
    """An existing image."""

    image: ImageField = InputField(description="The image")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Return the image with its size."""
        return ImageOutput.build(context.images.get_dto(self.image.image_name))


@invocation(
    "image_collection",
    title="Image Collection Primitive",
    tags=["primitives", "image", "collection"],
    category="primitives",
    version="1.0.2",
)
class ImageCollectionInvocation(BaseInvocation):
    """A list of images: the connected ones, followed by the selected ones."""

    collection: list[ImageField] | None = InputField(
        default=None, description="Connected images", input=Input.Connection, ui_order=0
    )
    images: list[ImageField] | None = InputField(
        default=None, description="Selected images", input=Input.Direct, ui_order=1
    )

    def invoke(self, context: InvocationContext) -> ImageCollectionOutput:
        """Return all images."""
        return ImageCollectionOutput(collection=[*(self.collection or []), *(self.images or [])])


@invocation("blank_image", title="Blank Image", tags=["image"], category="image", version="1.2.2")
class BlankImageInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Create an image of one color."""

    width: int = InputField(default=512, description=FieldDescriptions.width)
    height: int = InputField(default=512, description=FieldDescriptions.height)
    mode: Literal["RGB", "RGBA"] = InputField(default="RGB", description="Without or with transparency")
    color: ColorField = InputField(default=ColorField(r=0, g=0, b=0, a=255), description="The color")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Create and save the image."""
        color = self.color.tuple()
        image = Image.new(self.mode, (self.width, self.height), color if self.mode == "RGBA" else color[:3])
        return ImageOutput.build(context.images.save(image))


@invocation(
    "save_image", title="Save Image", tags=["primitives", "image"], category="image", version="1.2.2", use_cache=False
)
class SaveImageInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Save a copy of an image to the given board, with the given metadata."""

    image: ImageField = InputField(description="The image to save")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Save a copy."""
        return ImageOutput.build(context.images.save(context.images.get_pil(self.image.image_name)))


@invocation(
    "canvas_output",
    title="Canvas Output",
    tags=["canvas", "output", "image"],
    category="canvas",
    version="1.0.0",
    use_cache=False,
)
class CanvasOutputInvocation(BaseInvocation):
    """Save the image that the canvas shows as the result of this workflow."""

    image: ImageField = InputField(description="The image to show")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Save a copy."""
        return ImageOutput.build(context.images.save(context.images.get_pil(self.image.image_name)))


@invocation("show_image", title="Show Image", tags=["image"], category="image", version="1.0.1")
class ShowImageInvocation(BaseInvocation):
    """Pass an image on. The server has no display; the user sees the image in the gallery."""

    image: ImageField = InputField(description="The image to show")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Return the image, which must exist."""
        return ImageOutput.build(context.images.get_dto(self.image.image_name))


@invocation("img_conv", title="Convert Image Mode", tags=["image", "convert"], category="image", version="1.2.2")
class ImageConvertInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Change the color mode of an image. Files store RGB or gray, so other modes only last within one run."""

    image: ImageField = InputField(description="The image to convert")
    mode: ImageMode = InputField(default="L", description="The mode to convert to")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Convert and save the image."""
        image = convert_mode(context.images.get_pil(self.image.image_name), self.mode)
        return ImageOutput.build(context.images.save(image))
