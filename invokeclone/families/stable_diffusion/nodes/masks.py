"""Nodes that create inpainting masks: black changes, white stays."""

from typing import TYPE_CHECKING, Literal

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.families.stable_diffusion.fields import UNetField
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import DenoiseMaskOutput, GradientMaskOutput
from invokeclone.graph.vocabulary.fields import DenoiseMaskField, FieldDescriptions, ImageField, Input, InputField
from invokeclone.graph.vocabulary.taxonomy import ModelVariantType

if TYPE_CHECKING:
    import torch

COHERENCE_MODES = Literal["Gaussian Blur", "Box Blur", "Staged"]


def _encode_masked(
    context: InvocationContext, vae: VAEField, image: ImageField, keep: "torch.Tensor", *, tiled: bool, fp32: bool
) -> str:
    """Save the latents of an image whose changing part is gray, and return their name."""
    from invokeclone.components.autoencoders.vae import hide_masked, image_to_tensor
    from invokeclone.engine.loaded import device_of
    from invokeclone.families.stable_diffusion import pipeline

    masked = hide_masked(image_to_tensor(context.images.get_pil(image.image_name, mode="RGB")), keep)
    tiled = tiled or context.config.get().force_tiled_decode
    vae_info = context.models.load(vae.vae)
    with vae_info as model:
        context.util.signal_progress("Running VAE encoder")
        device = device_of(vae_info, model)
        latents = pipeline.encode_image(model, masked, device, fp32=fp32, tile=0 if tiled else None)
    return context.tensors.save(latents)


@invocation(
    "create_denoise_mask", title="Create Denoise Mask", tags=["mask", "denoise"], category="mask", version="1.0.2"
)
class CreateDenoiseMaskInvocation(BaseInvocation):
    """Create a denoise mask from a mask image."""

    vae: VAEField = InputField(description=FieldDescriptions.vae, input=Input.Connection, ui_order=0)
    image: ImageField | None = InputField(default=None, description="The image to mask", ui_order=1)
    mask: ImageField = InputField(description="The mask: black changes, white stays", ui_order=2)
    tiled: bool = InputField(default=False, description=FieldDescriptions.tiled, ui_order=3)
    fp32: bool = InputField(default=False, description=FieldDescriptions.fp32, ui_order=4)

    def invoke(self, context: InvocationContext) -> DenoiseMaskOutput:
        """Save the mask, and the masked image's latents if an image is given."""
        from invokeclone.components.autoencoders.vae import mask_to_tensor

        keep = mask_to_tensor(context.images.get_pil(self.mask.image_name, mode="L"))
        masked = None
        if self.image is not None:
            masked = _encode_masked(context, self.vae, self.image, keep, tiled=self.tiled, fp32=self.fp32)
        return DenoiseMaskOutput.build(context.tensors.save(keep), masked, gradient=False)


@invocation(
    "create_gradient_mask", title="Create Gradient Mask", tags=["mask", "denoise"], category="mask", version="1.3.0"
)
class CreateGradientMaskInvocation(BaseInvocation):
    """Create a mask whose border starts to change later than its inside, for smooth transitions."""

    mask: ImageField = InputField(description="The mask: black changes, white stays", ui_order=1)
    edge_radius: int = InputField(
        default=16, ge=0, description="Width of the border outside the mask, in pixels", ui_order=2
    )
    coherence_mode: COHERENCE_MODES = InputField(
        default="Gaussian Blur", description="How the border fades", ui_order=3
    )
    minimum_denoise: float = InputField(
        default=0.0, ge=0, le=1, description="Minimum denoising strength in the border", ui_order=4
    )
    unet: UNetField | None = InputField(
        default=None,
        description="The UNet of an inpainting model, which also needs the image and the VAE",
        input=Input.Connection,
        title="[OPTIONAL] UNet",
        ui_order=5,
    )
    image: ImageField | None = InputField(
        default=None,
        description="The image to mask, for an inpainting model",
        title="[OPTIONAL] Image",
        ui_order=6,
    )
    vae: VAEField | None = InputField(
        default=None,
        description="The VAE to encode the image, for an inpainting model",
        title="[OPTIONAL] VAE",
        input=Input.Connection,
        ui_order=7,
    )
    tiled: bool = InputField(default=False, description=FieldDescriptions.tiled, ui_order=8)
    fp32: bool = InputField(default=False, description=FieldDescriptions.fp32, ui_order=9)

    def invoke(self, context: InvocationContext) -> GradientMaskOutput:
        """Save the mask and an image of its area; for an inpainting model also the masked image's latents."""
        from invokeclone.engine import masks

        image = context.images.get_pil(self.mask.image_name, mode="L")
        mask = masks.gradient(image, self.edge_radius, self.coherence_mode, self.minimum_denoise)
        area = context.images.save(masks.area_of_change(mask))
        masked = None
        if self.image is not None and self.vae is not None and self._is_inpainting_model(context):
            masked = _encode_masked(context, self.vae, self.image, mask, tiled=self.tiled, fp32=self.fp32)
        field = DenoiseMaskField(mask_name=context.tensors.save(mask), masked_latents_name=masked, gradient=True)
        return GradientMaskOutput(denoise_mask=field, expanded_mask_area=ImageField(image_name=area.image_name))

    def _is_inpainting_model(self, context: InvocationContext) -> bool:
        if self.unet is None:
            return False
        config = context.models.get_config(self.unet.unet.key)
        return getattr(config, "variant", None) == ModelVariantType.Inpaint
