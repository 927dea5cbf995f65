"""The node that adds noise to images."""

from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, NodeError, invocation
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.vocabulary.fields import ImageField, InputField, WithBoard, WithMetadata
from invokeclone.nodes.images.filters import split_alpha, with_alpha

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@invocation("img_noise", title="Add Image Noise", tags=["image", "noise"], category="image", version="1.1.0")
class ImageNoiseInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Add noise to an image, preserving transparency."""

    image: ImageField = InputField(description="The image to add noise to")
    mask: ImageField | None = InputField(default=None, description="Black where noise is added, white where it is not")
    seed: int = InputField(default=0, ge=0, le=4294967295, description="Random seed")
    noise_type: Literal["gaussian", "salt_and_pepper"] = InputField(
        default="gaussian", description="Gaussian noise, or salt and pepper noise"
    )
    amount: float = InputField(
        default=0.1,
        ge=0,
        le=1,
        description="Standard deviation as a fraction of 255, or the fraction of replaced pixels",
    )
    noise_color: bool = InputField(default=True, description="Whether each channel has independent noise")
    size: int = InputField(default=1, ge=1, description="Side of a noise grain in pixels")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Add the noise and save the image. Raises NodeError when the mask has another size."""
        import numpy as np

        colors, alpha = split_alpha(context.images.get_pil(self.image.image_name))
        noisy = Image.fromarray(np.clip(np.round(self._noisy(np.asarray(colors))), 0, 255).astype(np.uint8))
        if self.mask is not None:
            mask = context.images.get_pil(self.mask.image_name, mode="L")
            if mask.size != colors.size:
                message = (
                    f"the mask size {mask.width}×{mask.height} differs from the image size {noisy.width}×{noisy.height}"
                )
                raise NodeError(message)
            noisy.paste(colors, mask=mask)
        return ImageOutput.build(context.images.save(with_alpha(noisy, alpha)))

    def _noisy(self, pixels: "NDArray[np.uint8]") -> "NDArray[Any]":
        """Return the pixels (height, width, 3) with noise; values may be outside 0 to 255."""
        import numpy as np

        rng = np.random.default_rng(self.seed)
        height, width, channels = pixels.shape
        size = min(self.size, max(height, width))
        grains = -(-height // size), -(-width // size), channels if self.noise_color else 1

        def repeat_grains(values: "NDArray[Any]") -> "NDArray[Any]":
            return values.repeat(size, axis=0).repeat(size, axis=1)[:height, :width]

        if self.noise_type == "gaussian":
            noisy: NDArray[Any] = pixels + repeat_grains(rng.standard_normal(grains) * self.amount * 255)
            return noisy
        replaced, white = rng.random(grains) < self.amount, rng.random(grains) < 0.5  # noqa: PLR2004 - half
        return np.where(repeat_grains(replaced), repeat_grains(white) * 255, pixels)
