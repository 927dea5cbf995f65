"""Nodes that decode FLUX.2's latents to images and encode images to latents."""

from invokeclone.components.autoencoders.nodes import DecodeLatents, EncodeImage
from invokeclone.graph.invocations.invocation import Classification, invocation


@invocation(
    "flux2_vae_decode",
    title="Latents to Image - FLUX2",
    tags=["latents", "image", "vae", "l2i", "flux2", "klein"],
    category="latents",
    version="1.0.0",
    classification=Classification.Prototype,
)
class Flux2VaeDecodeInvocation(DecodeLatents):
    """Decode latents to an image with FLUX.2's VAE."""


@invocation(
    "flux2_vae_encode",
    title="Image to Latents - FLUX2",
    tags=["latents", "image", "vae", "i2l", "flux2", "klein"],
    category="latents",
    version="1.0.0",
    classification=Classification.Prototype,
)
class Flux2VaeEncodeInvocation(EncodeImage):
    """Encode an image to latents with FLUX.2's VAE."""

    sampled = False
