"""Preprocessors for control images that use no model: edges, flat colors, shuffled content, resizing."""

from PIL import Image

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.vocabulary.fields import ImageField, InputField, WithBoard, WithMetadata
from invokeclone.graph.vocabulary.taxonomy import Classification
from invokeclone.kit.files.image_modes import convert, visible


@invocation(
    "canny_edge_detection",
    title="Canny Edge Detection",
    tags=["controlnet", "canny"],
    category="controlnet_preprocessors",
    version="1.0.0",
)
class CannyEdgeDetectionInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Detect the edges of an image and draw them white on black."""

    image: ImageField = InputField(description="The source image")
    low_threshold: int = InputField(default=100, ge=0, le=255, description="Gradient above which an edge continues")
    high_threshold: int = InputField(default=200, ge=0, le=255, description="Gradient above which an edge starts")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Detect the edges and save the image."""
        import numpy as np

        from invokeclone.nodes.images.pixels import edges

        image = np.asarray(context.images.get_pil(self.image.image_name, mode="RGB"))
        edge_image = Image.fromarray(edges.canny(image, self.low_threshold, self.high_threshold))
        return ImageOutput.build(context.images.save(convert(edge_image, "RGB")))


@invocation("color_map", title="Color Map", tags=["controlnet"], category="controlnet_preprocessors", version="1.0.0")
class ColorMapInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Reduce an image to squares of one color each."""

    image: ImageField = InputField(description="The image to reduce")
    tile_size: int = InputField(default=64, ge=1, description="Side of a square in pixels")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Reduce and save the image."""
        image = context.images.get_pil(self.image.image_name, mode="RGB")
        squares = max(1, image.width // self.tile_size), max(1, image.height // self.tile_size)
        reduced = image.resize(squares, Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.NEAREST)
        return ImageOutput.build(context.images.save(reduced))


@invocation(
    "content_shuffle",
    title="Content Shuffle",
    tags=["controlnet", "normal"],
    category="controlnet_preprocessors",
    version="1.0.0",
)
class ContentShuffleInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Warp an image randomly, preserving colors and textures but not content."""

    image: ImageField = InputField(description="The image to warp")
    scale_factor: int = InputField(default=256, ge=0, description="Scale of the distortion in pixels")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Warp and save the image."""
        import numpy as np

        from invokeclone.nodes.images.pixels import warps

        image = np.asarray(context.images.get_pil(self.image.image_name, mode="RGB"))
        warped = warps.shuffle(image, max(1, self.scale_factor), np.random.default_rng())
        return ImageOutput.build(context.images.save(Image.fromarray(warped)))


@invocation(
    "heuristic_resize",
    title="Heuristic Resize",
    tags=["image, controlnet"],
    category="controlnet_preprocessors",
    version="1.1.1",
    classification=Classification.Prototype,
)
class HeuristicResizeInvocation(BaseInvocation):
    """Resize an image while keeping thin lines thin and flat colors flat."""

    image: ImageField = InputField(description="The image to resize")
    width: int = InputField(default=512, ge=1, description="New width in pixels")
    height: int = InputField(default=512, ge=1, description="New height in pixels")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Resize and save the image, including its transparency."""
        import numpy as np

        from invokeclone.components.control.resize import heuristic_resize

        image = context.images.get_pil(self.image.image_name)
        pixels = np.asarray(visible(image))
        resized = heuristic_resize(pixels, (self.width, self.height))
        return ImageOutput.build(context.images.save(Image.fromarray(resized)))
