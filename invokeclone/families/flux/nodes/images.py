"""Nodes for images that FLUX.1 reads beside the prompt: Kontext and Fill."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.flux.fields import FluxKontextConditioningField
from invokeclone.components.flux.reference_sizes import closest_size
from invokeclone.families.flux.fields import FluxFillConditioningField, FluxFillOutput, FluxKontextOutput
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, Classification, invocation
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.vocabulary.fields import ImageField, InputField, TensorField, WithBoard, WithMetadata

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from invokeclone.families.flux.denoiser import Reference

_GRID = 16


@invocation(
    "flux_fill",
    title="FLUX Fill Conditioning",
    tags=["inpaint"],
    category="conditioning",
    version="1.0.0",
    classification=Classification.Beta,
)
class FluxFillInvocation(BaseInvocation):
    """Select the image for FLUX.1 Fill, and the part of it to paint anew."""

    image: ImageField = InputField(description="The image")
    mask: TensorField = InputField(description="Boolean mask of the part to paint anew")

    def invoke(self, context: InvocationContext) -> FluxFillOutput:
        """Return the conditioning."""
        return FluxFillOutput(fill_cond=FluxFillConditioningField(image=self.image, mask=self.mask))


@invocation(
    "flux_kontext",
    title="Kontext Conditioning - FLUX",
    tags=["conditioning", "kontext", "flux"],
    category="conditioning",
    version="1.0.0",
)
class FluxKontextInvocation(BaseInvocation):
    """Select a reference image."""

    image: ImageField = InputField(description="The reference image")

    def invoke(self, context: InvocationContext) -> FluxKontextOutput:
        """Return the conditioning."""
        return FluxKontextOutput(kontext_cond=FluxKontextConditioningField(image=self.image))


@invocation(
    "flux_kontext_image_prep",
    title="FLUX Kontext Image Prep",
    tags=["image", "concatenate", "flux", "kontext"],
    category="conditioning",
    version="1.0.0",
)
class FluxKontextConcatenateImagesInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Place images side by side, with equal heights, as one reference image."""

    images: list[ImageField] = InputField(min_length=1, max_length=10, description="The images")
    use_preferred_resolution: bool = InputField(
        default=True, description="Resize the result to a size that FLUX.1 Kontext was trained with"
    )

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Save the image."""
        images = [context.images.get_pil(field.image_name, mode="RGB") for field in self.images]
        joined = _fit(_side_by_side(images), preferred=self.use_preferred_resolution)
        return ImageOutput.build(context.images.save(image=joined))


def _side_by_side(images: "Sequence[Image.Image]") -> "Image.Image":
    """Return the images from left to right, scaled to the height of the first."""
    from PIL import Image

    height = images[0].height
    scaled = [
        image
        if image.height == height
        else image.resize((max(1, round(image.width * height / image.height)), height), Image.Resampling.LANCZOS)
        for image in images
    ]
    joined = Image.new("RGB", (sum(image.width for image in scaled), height))
    left = 0
    for image in scaled:
        joined.paste(image, (left, 0))
        left += image.width
    return joined


def _fit(image: "Image.Image", *, preferred: bool) -> "Image.Image":
    """Return an image of the preferred size with the closest aspect ratio, or of sides rounded down to the grid."""
    from PIL import Image

    if preferred:
        size = closest_size(image.width, image.height)
    else:
        size = (max(_GRID, image.width // _GRID * _GRID), max(_GRID, image.height // _GRID * _GRID))
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def kontext(
    context: InvocationContext, fields: Sequence[FluxKontextConditioningField], vae: VAEField | None
) -> "list[Reference]":
    """Return the tokens of reference images. Raises ValueError if there is no VAE to encode them."""
    from invokeclone.engine.loaded import device_of
    from invokeclone.families.flux.reference_images import kontext_references

    if not fields:
        return []
    images = [image_pixels(context, field.image) for field in fields]
    loaded = context.models.load(require_vae(vae, "kontext_conditioning").vae)
    with loaded as model:
        return kontext_references(model, images, device_of(loaded, model))


def fill(
    context: InvocationContext, field: FluxFillConditioningField | None, vae: VAEField | None, width: int, height: int
) -> "torch.Tensor | None":
    """Return the additional tokens of FLUX.1 Fill. Raises ValueError if there is no VAE to encode the image."""
    from invokeclone.engine.loaded import device_of
    from invokeclone.families.flux.reference_images import fill_tokens

    if field is None:
        return None
    mask = context.tensors.load(field.mask.tensor_name)
    pixels = image_pixels(context, field.image, (width, height))
    loaded = context.models.load(require_vae(vae, "fill_conditioning").vae)
    with loaded as model:
        return fill_tokens(model, pixels, mask, device_of(loaded, model))


def require_vae(vae: VAEField | None, name: str) -> VAEField:
    """Return the VAE that the input `name` of a denoise node needs. Raises ValueError if there is none."""
    if vae is None:
        message = f"{name} needs a VAE to encode its image: connect controlnet_vae"
        raise ValueError(message)
    return vae


def image_pixels(context: InvocationContext, image: ImageField, size: tuple[int, int] | None = None) -> "torch.Tensor":
    """Return an image as (1, 3, height, width) in -1..1, in its own size, or resized to `size` (width, height)."""
    import numpy as np
    import torch
    from PIL import Image

    original = context.images.get_pil(image.image_name, mode="RGB")
    resized = original if size in (None, original.size) else original.resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(resized, dtype=np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).div(127.5).sub(1.0)
