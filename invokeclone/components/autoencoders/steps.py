"""What nodes with an autoencoder do: load it, report progress, encode an image or decode latents."""

from invokeclone.components.autoencoders import vae as autoencoder
from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.engine.loaded import device_of
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.outputs import ImageOutput, LatentsOutput
from invokeclone.graph.vocabulary.fields import ImageField, LatentsField


def decode_latents(
    context: InvocationContext, latents: LatentsField, vae: VAEField, *, shifted: bool = True
) -> ImageOutput:
    """Decode latents in the autoencoder's number format and save the image, with levels rounded down.

    `shifted` is as in `vae.decode`.
    """
    stored = context.tensors.load(latents.latents_name)
    loaded = context.models.load(vae.vae)
    with loaded as model:
        context.util.signal_progress("Running VAE decoder")
        pixels = autoencoder.decode(
            model, stored, device_of(loaded, model), model.dtype, tile=_tile(context), shifted=shifted
        )
    return ImageOutput.build(context.images.save(image=autoencoder.tensor_to_image(pixels, truncate=True)))


def encode_image(
    context: InvocationContext, image: ImageField, vae: VAEField, *, shifted: bool = True, sampled: bool = True
) -> LatentsOutput:
    """Encode an image in the autoencoder's number format and save the latents.

    `shifted` and `sampled` are as in `vae.encode`.
    """
    pixels = autoencoder.image_to_tensor(context.images.get_pil(image.image_name, mode="RGB"))
    loaded = context.models.load(vae.vae)
    with loaded as model:
        context.util.signal_progress("Running VAE encoder")
        device = device_of(loaded, model)
        latents = autoencoder.encode(
            model, pixels, device, model.dtype, tile=_tile(context), shifted=shifted, sampled=sampled
        ).cpu()
    return LatentsOutput.build(context.tensors.save(latents), latents)


def _tile(context: InvocationContext) -> int | None:
    return 0 if context.config.get().force_tiled_decode else None
