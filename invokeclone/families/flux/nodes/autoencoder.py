"""Nodes that decode FLUX.1's latents to images and encode images to latents."""

from invokeclone.components.autoencoders.nodes import DecodeLatents, EncodeImage
from invokeclone.graph.invocations.invocation import invocation


@invocation(
    "flux_vae_decode",
    title="Latents to Image - FLUX",
    tags=["latents", "image", "vae", "l2i", "flux"],
    category="latents",
    version="1.0.2",
)
class FluxVaeDecodeInvocation(DecodeLatents):
    """Decode latents to an image."""


@invocation(
    "flux_vae_encode",
    title="Image to Latents - FLUX",
    tags=["latents", "image", "vae", "i2l", "flux"],
    category="latents",
    version="1.0.1",
)
class FluxVaeEncodeInvocation(EncodeImage):
    """Encode an image to latents."""
