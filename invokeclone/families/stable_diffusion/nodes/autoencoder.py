"""Nodes that decode latents to images and encode images to latents."""

from typing import Literal

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import LATENT_SCALE_FACTOR, ImageOutput, LatentsOutput
from invokeclone.graph.vocabulary.fields import (
    FieldDescriptions,
    ImageField,
    Input,
    InputField,
    LatentsField,
    WithBoard,
    WithMetadata,
)
from invokeclone.graph.vocabulary.taxonomy import BaseModelType

COMPENSATION_OPTIONS = Literal["None", "SDXL"]


@invocation(
    "l2i",
    title="Latents to Image - SD1.5, SDXL",
    tags=["latents", "image", "vae", "l2i"],
    category="latents",
    version="1.3.2",
)
class LatentsToImageInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Decode latents to an image."""

    latents: LatentsField = InputField(description=FieldDescriptions.latents, input=Input.Connection)
    vae: VAEField = InputField(description=FieldDescriptions.vae, input=Input.Connection)
    tiled: bool = InputField(default=False, description=FieldDescriptions.tiled)
    tile_size: int = InputField(default=0, multiple_of=LATENT_SCALE_FACTOR, description=FieldDescriptions.vae_tile_size)
    fp32: bool = InputField(default=False, description=FieldDescriptions.fp32)

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Decode the latents and save the image."""
        from invokeclone.engine.loaded import device_of
        from invokeclone.families.stable_diffusion import pipeline

        latents = context.tensors.load(self.latents.latents_name)
        tiled = self.tiled or context.config.get().force_tiled_decode
        vae_info = context.models.load(self.vae.vae)
        with vae_info as vae:
            context.util.signal_progress("Running VAE decoder")
            image = pipeline.decode(
                vae,
                latents,
                device_of(vae_info, vae),
                fp32=self.fp32,
                tile=self.tile_size if tiled else None,
                seamless_axes=self.vae.seamless_axes,
            )
        return ImageOutput.build(context.images.save(image=image))


@invocation(
    "i2l",
    title="Image to Latents - SD1.5, SDXL",
    tags=["latents", "image", "vae", "i2l"],
    category="latents",
    version="1.2.0",
)
class ImageToLatentsInvocation(BaseInvocation):
    """Encode an image to latents. Seamless axes of the VAE affect decoding only."""

    image: ImageField = InputField(description="The image to encode")
    vae: VAEField = InputField(description=FieldDescriptions.vae, input=Input.Connection)
    tiled: bool = InputField(default=False, description=FieldDescriptions.tiled)
    tile_size: int = InputField(default=0, multiple_of=LATENT_SCALE_FACTOR, description=FieldDescriptions.vae_tile_size)
    fp32: bool = InputField(default=False, description=FieldDescriptions.fp32)
    color_compensation: COMPENSATION_OPTIONS = InputField(
        default="None", description="Compensate for the color shift of SDXL's VAE; no effect with other VAEs"
    )

    def invoke(self, context: InvocationContext) -> LatentsOutput:
        """Encode the image and save the latents."""
        from invokeclone.components.autoencoders.vae import image_to_tensor
        from invokeclone.engine.loaded import device_of
        from invokeclone.families.stable_diffusion import pipeline

        image = context.images.get_pil(self.image.image_name, mode="RGB")
        tiled = self.tiled or context.config.get().force_tiled_decode
        vae_info = context.models.load(self.vae.vae)
        with vae_info as vae:
            context.util.signal_progress("Running VAE encoder")
            pixels = image_to_tensor(image)
            if self.color_compensation == "SDXL" and vae_info.config.base == BaseModelType.StableDiffusionXL:
                pixels = pipeline.compensate_colors(pixels)
            latents = pipeline.encode_image(
                vae,
                pixels,
                device_of(vae_info, vae),
                fp32=self.fp32,
                tile=self.tile_size if tiled else None,
            )
        return LatentsOutput.build(context.tensors.save(latents), latents)
