"""Images made for control networks without a model: edges, flat colors, shuffled content, and their sizes."""

from PIL import Image

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.vocabulary.fields import ImageField, InputField, WithBoard, WithMetadata
from invokeclone.graph.vocabulary.taxonomy import Classification


@invocation(
    "canny_edge_detection",
    title="Canny Edge Detection",
    tags=["controlnet", "canny"],
    category="controlnet_preprocessors",
    version="1.0.0",
)
class CannyEdgeDetectionInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Draw the edges of an image white on black."""

    image: ImageField = InputField(description="The image to find edges in")
    low_threshold: int = InputField(default=100, ge=0, le=255, description="The slope from which an edge goes on")
    high_threshold: int = InputField(default=200, ge=0, le=255, description="The slope from which an edge begins")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Find and save."""
        import numpy as np

        from invokeclone.nodes.images.pixels import edges

        image = np.asarray(context.images.get_pil(self.image.image_name, mode="RGB"))
        edge_image = Image.fromarray(edges.canny(image, self.low_threshold, self.high_threshold))
        return ImageOutput.build(context.images.save(edge_image.convert("RGB")))


@invocation("color_map", title="Color Map", tags=["controlnet"], category="controlnet_preprocessors", version="1.0.0")
class ColorMapInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Reduce an image to squares of one color each."""

    image: ImageField = InputField(description="The image to reduce")
    tile_size: int = InputField(default=64, ge=1, description="Side of a square in pixels")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Reduce and save."""
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
    """Warp an image by chance so that its colors and textures stay and its content does not."""

    image: ImageField = InputField(description="The image to warp")
    scale_factor: int = InputField(default=256, ge=0, description="Size of the waves in pixels")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Warp and save."""
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
    """Bring an image to a size so that thin lines stay thin and flat colors stay flat."""

    image: ImageField = InputField(description="The image to resize")
    width: int = InputField(default=512, ge=1, description="New width in pixels")
    height: int = InputField(default=512, ge=1, description="New height in pixels")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Resize and save; transparency is resized too."""
        import numpy as np

        from invokeclone.components.control.resize import heuristic_resize

        image = context.images.get_pil(self.image.image_name)
        pixels = np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
        resized = heuristic_resize(pixels, (self.width, self.height))
        return ImageOutput.build(context.images.save(Image.fromarray(resized)))
