"""Base classes of the nodes that decode latents and encode images with one autoencoder, which differ in name and version only."""

from typing import ClassVar

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation
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


class DecodeLatents(BaseInvocation, WithMetadata, WithBoard):
    """Decode latents to an image. A family's node is a subclass with a type."""

    shifted: ClassVar[bool] = True
    """As in `vae.decode`."""

    latents: LatentsField = InputField(description=FieldDescriptions.latents, input=Input.Connection)
    vae: VAEField = InputField(description=FieldDescriptions.vae, input=Input.Connection)

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Decode the latents and save the image."""
        from invokeclone.components.autoencoders.steps import decode_latents

        return decode_latents(context, self.latents, self.vae, shifted=self.shifted)


class EncodeImage(BaseInvocation):
    """Encode an image to latents. A family's node is a subclass with a type."""

    shifted: ClassVar[bool] = True
    sampled: ClassVar[bool] = True
    """Both as in `vae.encode`."""

    image: ImageField = InputField(description="The image to encode")
    vae: VAEField = InputField(description=FieldDescriptions.vae, input=Input.Connection)

    def invoke(self, context: InvocationContext) -> LatentsOutput:
        """Encode the image and save the latents."""
        from invokeclone.components.autoencoders.steps import encode_image

        return encode_image(context, self.image, self.vae, shifted=self.shifted, sampled=self.sampled)
