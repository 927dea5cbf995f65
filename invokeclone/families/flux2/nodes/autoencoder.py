"""Nodes that decode FLUX.2's latents to images and encode images to latents."""

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, Classification, invocation
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


@invocation(
    "flux2_vae_decode",
    title="Latents to Image - FLUX2",
    tags=["latents", "image", "vae", "l2i", "flux2", "klein"],
    category="latents",
    version="1.0.0",
    classification=Classification.Prototype,
)
class Flux2VaeDecodeInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Decode latents to an image with FLUX.2's VAE."""

    latents: LatentsField = InputField(description=FieldDescriptions.latents, input=Input.Connection)
    vae: VAEField = InputField(description=FieldDescriptions.vae, input=Input.Connection)

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Decode the latents and save the image."""
        from invokeclone.components.autoencoders.steps import decode_latents

        return decode_latents(context, self.latents, self.vae)


@invocation(
    "flux2_vae_encode",
    title="Image to Latents - FLUX2",
    tags=["latents", "image", "vae", "i2l", "flux2", "klein"],
    category="latents",
    version="1.0.0",
    classification=Classification.Prototype,
)
class Flux2VaeEncodeInvocation(BaseInvocation):
    """Encode an image to latents with FLUX.2's VAE."""

    image: ImageField = InputField(description="The image to encode")
    vae: VAEField = InputField(description=FieldDescriptions.vae, input=Input.Connection)

    def invoke(self, context: InvocationContext) -> LatentsOutput:
        """Encode the image and save the latents."""
        from invokeclone.components.autoencoders.steps import encode_image

        return encode_image(context, self.image, self.vae, sampled=False)
