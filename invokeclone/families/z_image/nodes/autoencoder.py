"""Nodes that decode Z-Image's latents to images and encode images to latents."""

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import ImageOutput, LatentsOutput
from invokeclone.graph.vocabulary.fields import (
    FieldDescriptions,
    ImageField,
    Input,
    InputField,
    LatentsField,
    WithBoard,
    WithMetadata,
)
from invokeclone.graph.vocabulary.taxonomy import Classification


@invocation(
    "z_image_l2i",
    title="Latents to Image - Z-Image",
    tags=["latents", "image", "vae", "l2i", "z-image"],
    category="latents",
    version="1.1.0",
    classification=Classification.Prototype,
)
class ZImageLatentsToImageInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Decode latents to an image with Z-Image's VAE, or FLUX.1's."""

    latents: LatentsField = InputField(description=FieldDescriptions.latents, input=Input.Connection)
    vae: VAEField = InputField(description=FieldDescriptions.vae, input=Input.Connection)

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Decode the latents and save the image."""
        from invokeclone.components.autoencoders.steps import decode_latents

        return decode_latents(context, self.latents, self.vae)


@invocation(
    "z_image_i2l",
    title="Image to Latents - Z-Image",
    tags=["image", "latents", "vae", "i2l", "z-image"],
    category="latents",
    version="1.1.0",
    classification=Classification.Prototype,
)
class ZImageImageToLatentsInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Encode an image to latents with Z-Image's VAE, or FLUX.1's."""

    image: ImageField = InputField(description="The image to encode")
    vae: VAEField = InputField(description=FieldDescriptions.vae, input=Input.Connection)

    def invoke(self, context: InvocationContext) -> LatentsOutput:
        """Encode the image and save the latents."""
        from invokeclone.components.autoencoders.steps import encode_image

        return encode_image(context, self.image, self.vae)
