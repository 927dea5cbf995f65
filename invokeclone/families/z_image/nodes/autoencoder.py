"""Nodes that decode Z-Image's latents to images and encode images to latents."""

from invokeclone.components.autoencoders.nodes import DecodeLatents, EncodeImage
from invokeclone.graph.invocations.invocation import invocation
from invokeclone.graph.vocabulary.fields import (
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
class ZImageLatentsToImageInvocation(DecodeLatents):
    """Decode latents to an image with Z-Image's VAE, or FLUX.1's."""


@invocation(
    "z_image_i2l",
    title="Image to Latents - Z-Image",
    tags=["image", "latents", "vae", "i2l", "z-image"],
    category="latents",
    version="1.1.0",
    classification=Classification.Prototype,
)
class ZImageImageToLatentsInvocation(EncodeImage, WithMetadata, WithBoard):
    """Encode an image to latents with Z-Image's VAE, or FLUX.1's."""
