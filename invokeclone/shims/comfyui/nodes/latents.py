"""Nodes that convert between images and latents, and that resize and select latents."""

from dataclasses import replace

from invokeclone.graph.recipes import CannotBuild
from invokeclone.queue.generation import MAX_SIDE, InvalidGeneration, fit_size
from invokeclone.shims.comfyui.node_types import (
    MAX_IMAGES,
    BuildContext,
    choice,
    integer,
    link,
    node,
    number,
)
from invokeclone.shims.comfyui.nodes.images import map_images
from invokeclone.shims.comfyui.values import ImageBatch, Latents, Mask, Vae, check_image_count

GRID = 8
METHODS = {
    "nearest-exact": "nearest-exact",
    "bilinear": "bilinear",
    "area": "area",
    "bicubic": "bicubic",
    "bislerp": "bicubic",
}
"""ComfyUI's resize methods, and the matching ones of the graph's nodes."""
SAMPLES = link("LATENT")


def fit_latent_size(width: int, height: int, grid: int = GRID) -> tuple[int, int]:
    """Return the size fitted to the grid; raises CannotBuild for one over the limits."""
    try:
        return fit_size(width, height, grid)
    except InvalidGeneration as error:
        raise CannotBuild(str(error)) from error


SIDE = integer(512, 16, 16_384, step=GRID, from_model=True)
EMPTY = {"width": SIDE, "height": SIDE, "batch_size": integer(1, 1, MAX_IMAGES)}


@node("EmptyFlux2LatentImage", "Empty Flux 2 Latent", "latent", EMPTY, "LATENT")
@node("EmptySD3LatentImage", "EmptySD3LatentImage", "latent/sd3", EMPTY, "LATENT")
@node("EmptyLatentImage", "Empty Latent Image", "latent", EMPTY, "LATENT")
def empty(
    context: BuildContext,  # noqa: ARG001
    *,
    width: int | None,
    height: int | None,
    batch_size: int,
) -> tuple[Latents]:
    """Create empty latents; the sampler's model determines the channels, and the size if it is left out."""
    if width is not None and height is not None:
        fit_latent_size(width, height)  # refuses sizes over the limits
    return (Latents(count=batch_size, width=width, height=height),)


# Images


@node("VAEDecode", "VAE Decode", "latent", {"samples": SAMPLES, "vae": link("VAE")}, "IMAGE")
def decode(context: BuildContext, *, samples: Latents, vae: Vae) -> tuple[ImageBatch]:
    """Decode latents into images."""
    return (_decode_images(context, samples, vae),)


@node(
    "VAEDecodeTiled",
    "VAE Decode (Tiled)",
    "_for_testing",
    {
        "samples": SAMPLES,
        "vae": link("VAE"),
        "tile_size": integer(512, 64, 4096, step=32),
        "overlap": replace(integer(64, 0, 4096, step=32), optional=True),
        "temporal_size": replace(integer(64, 8, 4096, step=4), optional=True),
        "temporal_overlap": replace(integer(8, 4, 4096, step=4), optional=True),
    },
    "IMAGE",
)
def decode_tiled(
    context: BuildContext,
    *,
    samples: Latents,
    vae: Vae,
    tile_size: int,
    overlap: int,  # noqa: ARG001  (the decoder's own is used)
    temporal_size: int,  # noqa: ARG001  (only for videos)
    temporal_overlap: int,  # noqa: ARG001  (only for videos)
) -> tuple[ImageBatch]:
    """Decode latents tile by tile, which needs less memory. The overlap of the tiles is fixed."""
    return (_decode_images(context, samples, vae, tile_size // GRID * GRID),)


def _decode_images(context: BuildContext, samples: Latents, vae: Vae, tile: int | None = None) -> ImageBatch:
    samples.require_space_of(vae.config)
    images = tuple(
        vae.recipe.decode(context.builder, f"image{index}", source, vae.vae, tile)
        for index, source in enumerate(samples.require_nodes("decoding"))
    )
    return ImageBatch(images, *samples.size("decoding"), samples.metadata)


@node("VAEEncode", "VAE Encode", "latent", {"pixels": link("IMAGE"), "vae": link("VAE")}, "LATENT")
def encode(context: BuildContext, *, pixels: ImageBatch, vae: Vae) -> tuple[Latents]:
    """Encode images into latents."""
    return (_encode_images(context, pixels, vae),)


def _encode_images(context: BuildContext, pixels: ImageBatch, vae: Vae) -> Latents:
    fit_latent_size(pixels.width, pixels.height)  # refuses sizes over the limits
    width, height = (max(vae.grid, side // vae.grid * vae.grid) for side in (pixels.width, pixels.height))
    if vae.grid > GRID and (width, height) != (pixels.width, pixels.height):  # the encoder rounds down to GRID only
        size = {"width": width, "height": height, "resample_mode": "lanczos"}
        pixels = replace(pixels, nodes=map_images(context, pixels, "fit", "img_resize", **size))
    latents = tuple(
        vae.recipe.encode_image(context.builder, f"latents{index}", image, vae.vae)
        for index, image in enumerate(pixels.nodes)
    )
    image = pixels.nodes[0] if len(latents) == 1 else None
    return Latents(latents, len(latents), width, height, vae, vae.config, image)


@node(
    "VAEEncodeForInpaint",
    "VAE Encode (for Inpainting)",
    "latent/inpaint",
    {"pixels": link("IMAGE"), "vae": link("VAE"), "mask": link("MASK"), "grow_mask_by": integer(6, 0, 64)},
    "LATENT",
)
def encode_for_inpaint(
    context: BuildContext, *, pixels: ImageBatch, vae: Vae, mask: Mask, grow_mask_by: int
) -> tuple[Latents]:
    """Encode an image of which only the masked area changes; the mask is grown by some pixels and fades."""
    if grow_mask_by:
        keep_mask = mask.to_image(context, "keep_mask", white_changes=False)
        fade = {"threshold": 127, "fade_size_px": grow_mask_by}
        grown = context.output("grow", "expand_mask_with_fade", "image", mask=keep_mask, **fade)
        mask = replace(mask, image=grown, white_changes=False)
    return (replace(_encode_images(context, pixels, vae), mask=mask),)


@node(
    "SetLatentNoiseMask",
    "Set Latent Noise Mask",
    "latent/inpaint",
    {"samples": SAMPLES, "mask": link("MASK")},
    "LATENT",
)
def set_noise_mask(context: BuildContext, *, samples: Latents, mask: Mask) -> tuple[Latents]:  # noqa: ARG001
    """Change only the masked area of latents."""
    samples.require_nodes("masking")
    return (replace(samples, mask=mask),)


# Sizes


@node(
    "LatentUpscale",
    "Upscale Latent",
    "latent",
    {
        "samples": SAMPLES,
        "upscale_method": choice(*METHODS),
        "width": integer(512, 0, MAX_SIDE, step=GRID),
        "height": integer(512, 0, MAX_SIDE, step=GRID),
        "crop": choice("disabled"),
    },
    "LATENT",
)
def upscale(
    context: BuildContext,
    *,
    samples: Latents,
    upscale_method: str,
    width: int,
    height: int,
    crop: str,  # noqa: ARG001  (always disabled)
) -> tuple[Latents]:
    """Resize latents to a size in pixels; a side of 0 is computed from the other one."""
    old_width, old_height = samples.size("resizing")
    if not width and not height:
        return (samples,)
    width = width or round(old_width * height / old_height)
    height = height or round(old_height * width / old_width)
    return (_resize(context, samples, upscale_method, width, height),)


@node(
    "LatentUpscaleBy",
    "Upscale Latent By",
    "latent",
    {"samples": SAMPLES, "upscale_method": choice(*METHODS), "scale_by": number(1.5, 0.01, 8.0)},
    "LATENT",
)
def upscale_by(context: BuildContext, *, samples: Latents, upscale_method: str, scale_by: float) -> tuple[Latents]:
    """Scale latents by a factor."""
    width, height = (round(side * scale_by) for side in samples.size("resizing"))
    return (_resize(context, samples, upscale_method, width, height),)


def _resize(context: BuildContext, samples: Latents, method: str, width: int, height: int) -> Latents:
    width, height = fit_latent_size(width, height)
    size = {"width": width, "height": height, "mode": METHODS[method]}
    nodes = tuple(
        context.output(f"resize{index}", "lresize", "latents", latents=source, **size)
        for index, source in enumerate(samples.nodes)
    )
    return replace(samples, nodes=nodes, width=width, height=height, image=None)


# Batches


@node(
    "RepeatLatentBatch",
    "Repeat Latent Batch",
    "latent/batch",
    {"samples": SAMPLES, "amount": integer(1, 1, MAX_IMAGES)},
    "LATENT",
)
def repeat(context: BuildContext, *, samples: Latents, amount: int) -> tuple[Latents]:  # noqa: ARG001
    """Repeat latents."""
    repeated = replace(
        samples, nodes=samples.nodes * amount, count=samples.count * amount, metadata=samples.metadata * amount
    )
    check_image_count(repeated.count)
    return (repeated,)


@node(
    "LatentFromBatch",
    "Latent From Batch",
    "latent/batch",
    {"samples": SAMPLES, "batch_index": integer(0, 0, MAX_IMAGES - 1), "length": integer(1, 1, MAX_IMAGES)},
    "LATENT",
)
def from_batch(context: BuildContext, *, samples: Latents, batch_index: int, length: int) -> tuple[Latents]:  # noqa: ARG001
    """Select a range of latents, as far as it exists; at least one is selected."""
    first = min(batch_index, samples.count - 1)
    selection = slice(first, first + length)
    count = len(range(samples.count)[selection])
    return (replace(samples, nodes=samples.nodes[selection], count=count, metadata=samples.metadata[selection]),)
