"""Nodes that enlarge or restore images with an image-to-image model."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.sizes import check_pixels
from invokeclone.graph.vocabulary.fields import ImageField, InputField, WithBoard, WithMetadata
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType

if TYPE_CHECKING:
    from invokeclone.components.upscalers.load import ImageToImageNetwork

GRID = 8
RELEASES = "https://github.com/xinntao/Real-ESRGAN/releases/download"
ESRGAN_MODELS = Literal[
    "RealESRGAN_x4plus.pth",
    "RealESRGAN_x4plus_anime_6B.pth",
    "ESRGAN_SRx4_DF2KOST_official-ff704c30.pth",
    "RealESRGAN_x2plus.pth",
]
ESRGAN_VERSIONS = {
    "RealESRGAN_x4plus.pth": "v0.1.0",
    "RealESRGAN_x4plus_anime_6B.pth": "v0.2.2.4",
    "ESRGAN_SRx4_DF2KOST_official-ff704c30.pth": "v0.1.1",
    "RealESRGAN_x2plus.pth": "v0.2.1",
}
"""Release of Real-ESRGAN that each file is part of."""


class _Upscaler:
    """A loaded network, applied to the images of one node."""

    def __init__(self, context: InvocationContext, node: BaseInvocation, loaded: Any, tile_size: int) -> None:
        self._context, self._node, self._loaded, self._tile_size = context, node, loaded, tile_size

    def once(self, image: Image.Image) -> Image.Image:
        """Return the image after one pass. Raises SizeOverLimit."""
        with self._loaded as network:
            return self._pass(network, image)

    def up_to(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Return the image at a size, after one pass, or as many as it takes to reach the size. Raises SizeOverLimit."""
        with self._loaded as network:
            result = self._pass(network, image)
            while network.scale > 1 and (result.width < size[0] or result.height < size[1]):
                result = self._pass(network, result)
        return result if result.size == size else result.resize(size, Image.Resampling.LANCZOS)

    def _pass(self, network: "ImageToImageNetwork", image: Image.Image) -> Image.Image:
        from invokeclone.components.upscalers import pipeline
        from invokeclone.engine.loaded import device_of

        size = image.width * network.scale, image.height * network.scale
        check_pixels(*size, self._context.config.get().limits, f"node {self._node.id} ({self._node.get_type()})")
        device = device_of(self._loaded, network)
        return pipeline.convert_image(network, image, self._tile_size, device, self._report)

    def _report(self, share: float) -> None:
        self._context.util.signal_progress("Upscaling", share)


@invocation("spandrel_image_to_image", title="Image-to-Image", tags=["upscale"], category="upscale", version="1.3.0")
class SpandrelImageToImageInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Run an image-to-image model, such as an upscaler, on an image."""

    image: ImageField = InputField(description="The image")
    image_to_image_model: ModelIdentifierField = InputField(
        title="Image-to-Image Model",
        description="The image-to-image model",
        ui_model_type=ModelType.SpandrelImageToImage,
    )
    tile_size: int = InputField(default=512, description="Side of the tiles in pixels; 0: the image in one piece")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Run the model and save the image. Raises SizeOverLimit."""
        image = context.images.get_pil(self.image.image_name, mode="RGB")
        upscaler = _Upscaler(context, self, context.models.load(self.image_to_image_model), self.tile_size)
        return ImageOutput.build(context.images.save(upscaler.once(image)))


@invocation(
    "spandrel_image_to_image_autoscale",
    title="Image-to-Image (Autoscale)",
    tags=["upscale"],
    category="upscale",
    version="1.0.0",
)
class SpandrelImageToImageAutoscaleInvocation(SpandrelImageToImageInvocation):
    """Run an image-to-image model, such as an upscaler, until the image is as large as requested."""

    scale: float = InputField(default=4.0, gt=0, le=16, description="Size of the result as a multiple of the image's")
    fit_to_multiple_of_8: bool = InputField(default=False, description="Round the size down to a multiple of 8 pixels")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Run the model and save the image. Raises SizeOverLimit."""
        image = context.images.get_pil(self.image.image_name, mode="RGB")
        grid = GRID if self.fit_to_multiple_of_8 else 1
        width, height = (max(grid, int(side * self.scale) // grid * grid) for side in image.size)
        check_pixels(width, height, context.config.get().limits, f"node {self.id} ({self.get_type()})")
        upscaler = _Upscaler(context, self, context.models.load(self.image_to_image_model), self.tile_size)
        return ImageOutput.build(context.images.save(upscaler.up_to(image, (width, height))))


@invocation("esrgan", title="Upscale (RealESRGAN)", tags=["esrgan", "upscale"], category="upscale", version="1.3.2")
class ESRGANInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Upscale an image with a Real-ESRGAN model: the installed one, else one downloaded at the first use."""

    image: ImageField = InputField(description="The image")
    model_name: ESRGAN_MODELS = InputField(default="RealESRGAN_x4plus.pth", description="File of the model")
    tile_size: int = InputField(default=400, ge=0, description="Side of the tiles in pixels; 0: the image in one piece")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Upscale and save the image. Raises SizeOverLimit."""
        image = context.images.get_pil(self.image.image_name, mode="RGB")
        upscaler = _Upscaler(context, self, self._load(context), self.tile_size)
        return ImageOutput.build(context.images.save(upscaler.once(image)))

    def _load(self, context: InvocationContext) -> Any:
        name = self.model_name.removesuffix(".pth")
        installed = context.models.search_by_attrs(name, BaseModelType.Any, ModelType.SpandrelImageToImage)
        if installed:
            return context.models.load(installed[0].key)
        return context.models.load_remote_model(
            f"{RELEASES}/{ESRGAN_VERSIONS[self.model_name]}/{self.model_name}", _loader()
        )


def _loader() -> Callable[[Path], Any]:
    from invokeclone.components.upscalers.load import from_tensors
    from invokeclone.engine.loading.files import read_tensors

    return lambda path: from_tensors(read_tensors(path), path.name)
