"""Nodes between pictures and latents, and those that reshape latents."""

from dataclasses import replace

from invokeclone.queue.generation import LEAST_SIDE, MOST_SIDE, NotAPicture, legal_size
from invokeclone.shims.comfyui.values import Images, Latents, Mask, few
from invokeclone.shims.comfyui.vocabulary import (
    MOST_PICTURES,
    CannotDraw,
    Lead,
    Place,
    choice,
    integer,
    link,
    node,
    number,
)

GRID = 8
METHODS = {
    "nearest-exact": "nearest-exact",
    "bilinear": "bilinear",
    "area": "area",
    "bicubic": "bicubic",
    "bislerp": "bicubic",
}
"""ComfyUI's ways of resizing latents, and ours."""
SAMPLES = link("LATENT")


def fitting(width: int, height: int) -> tuple[int, int]:
    """Return the size on the grid; raises CannotDraw for one over the limits."""
    try:
        return legal_size(width, height, GRID)
    except NotAPicture as error:
        raise CannotDraw(str(error)) from error


@node(
    "EmptyLatentImage",
    "Empty Latent Image",
    "latent",
    {
        "width": integer(512, LEAST_SIDE, MOST_SIDE, step=GRID, from_model=True),
        "height": integer(512, LEAST_SIDE, MOST_SIDE, step=GRID, from_model=True),
        "batch_size": integer(1, 1, MOST_PICTURES),
    },
    "LATENT",
)
def empty(
    place: Place,  # noqa: ARG001
    *,
    width: int | None,
    height: int | None,
    batch_size: int,
) -> tuple[Latents]:
    """Begin with nothing; a size that is left open is the model's own."""
    if width is not None and height is not None:
        width, height = fitting(width, height)
    return (Latents(count=batch_size, width=width, height=height),)


# Pictures


@node("VAEDecode", "VAE Decode", "latent", {"samples": SAMPLES, "vae": link("VAE")}, "IMAGE")
def decode(place: Place, *, samples: Latents, vae: Lead) -> tuple[Images]:
    """Decode latents into pictures."""
    return (_decoded(place, samples, vae),)


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
    place: Place,
    *,
    samples: Latents,
    vae: Lead,
    tile_size: int,
    overlap: int,  # noqa: ARG001  (the decoder has its own)
    temporal_size: int,  # noqa: ARG001  (of videos)
    temporal_overlap: int,  # noqa: ARG001  (of videos)
) -> tuple[Images]:
    """Decode latents tile by tile, which needs less memory. How far tiles overlap is the decoder's own affair."""
    return (_decoded(place, samples, vae, tiled=True, tile_size=tile_size // GRID * GRID),)


def _decoded(place: Place, samples: Latents, vae: Lead, **settings: int | bool) -> Images:
    nodes = [
        place.add(f"image{index}", "l2i", latents=Lead(f"{source}.latents"), vae=vae, fp32=True, **settings)
        for index, source in enumerate(samples.filled("decoding"))
    ]
    return Images(tuple(Lead(f"{one}.image") for one in nodes), *samples.size("decoding"), samples.metadata)


@node("VAEEncode", "VAE Encode", "latent", {"pixels": link("IMAGE"), "vae": link("VAE")}, "LATENT")
def encode(place: Place, *, pixels: Images, vae: Lead) -> tuple[Latents]:
    """Encode pictures into latents."""
    return (_encoded(place, pixels, vae),)


def _encoded(place: Place, pixels: Images, vae: Lead) -> Latents:
    fitting(pixels.width, pixels.height)  # refuses what is too large
    nodes = tuple(
        place.add(f"latents{index}", "i2l", image=lead, vae=vae, fp32=True) for index, lead in enumerate(pixels.nodes)
    )
    width, height = (max(GRID, side // GRID * GRID) for side in (pixels.width, pixels.height))
    image = pixels.nodes[0] if len(nodes) == 1 else None
    return Latents(nodes, len(nodes), width, height, vae, image)


@node(
    "VAEEncodeForInpaint",
    "VAE Encode (for Inpainting)",
    "latent/inpaint",
    {"pixels": link("IMAGE"), "vae": link("VAE"), "mask": link("MASK"), "grow_mask_by": integer(6, 0, 64)},
    "LATENT",
)
def encode_for_inpaint(place: Place, *, pixels: Images, vae: Lead, mask: Mask, grow_mask_by: int) -> tuple[Latents]:
    """Encode a picture of which only a part will change; the part reaches out by some pixels, fading."""
    if grow_mask_by:
        keep = mask.drawn(place, "keep", white_changes=False)
        grown = place.add("grow", "expand_mask_with_fade", mask=keep, threshold=127, fade_size_px=grow_mask_by)
        mask = replace(mask, image=Lead(f"{grown}.image"), white_changes=False)
    return (replace(_encoded(place, pixels, vae), mask=mask),)


@node(
    "SetLatentNoiseMask",
    "Set Latent Noise Mask",
    "latent/inpaint",
    {"samples": SAMPLES, "mask": link("MASK")},
    "LATENT",
)
def set_noise_mask(place: Place, *, samples: Latents, mask: Mask) -> tuple[Latents]:  # noqa: ARG001
    """Let only a part of the latents change."""
    samples.filled("masking")
    return (replace(samples, mask=mask),)


# Sizes


@node(
    "LatentUpscale",
    "Upscale Latent",
    "latent",
    {
        "samples": SAMPLES,
        "upscale_method": choice(*METHODS),
        "width": integer(512, 0, MOST_SIDE, step=GRID),
        "height": integer(512, 0, MOST_SIDE, step=GRID),
        "crop": choice("disabled"),
    },
    "LATENT",
)
def upscale(
    place: Place,
    *,
    samples: Latents,
    upscale_method: str,
    width: int,
    height: int,
    crop: str,  # noqa: ARG001  (never)
) -> tuple[Latents]:
    """Bring latents to a size in pixels; a side of 0 follows from the other one."""
    old_width, old_height = samples.size("resizing")
    if not width and not height:
        return (samples,)
    width = width or round(old_width * height / old_height)
    height = height or round(old_height * width / old_width)
    return (_resized(place, samples, upscale_method, width, height),)


@node(
    "LatentUpscaleBy",
    "Upscale Latent By",
    "latent",
    {"samples": SAMPLES, "upscale_method": choice(*METHODS), "scale_by": number(1.5, 0.01, 8.0)},
    "LATENT",
)
def upscale_by(place: Place, *, samples: Latents, upscale_method: str, scale_by: float) -> tuple[Latents]:
    """Multiply the size of latents."""
    width, height = (round(side * scale_by) for side in samples.size("resizing"))
    return (_resized(place, samples, upscale_method, width, height),)


def _resized(place: Place, samples: Latents, method: str, width: int, height: int) -> Latents:
    width, height = fitting(width, height)
    nodes = tuple(
        place.add(
            f"resize{index}",
            "lresize",
            latents=Lead(f"{source}.latents"),
            width=width,
            height=height,
            mode=METHODS[method],
        )
        for index, source in enumerate(samples.nodes)
    )
    return replace(samples, nodes=nodes, width=width, height=height, image=None)


# How many


@node(
    "RepeatLatentBatch",
    "Repeat Latent Batch",
    "latent/batch",
    {"samples": SAMPLES, "amount": integer(1, 1, MOST_PICTURES)},
    "LATENT",
)
def repeat(place: Place, *, samples: Latents, amount: int) -> tuple[Latents]:  # noqa: ARG001
    """Have the same latents several times."""
    repeated = replace(
        samples, nodes=samples.nodes * amount, count=samples.count * amount, metadata=samples.metadata * amount
    )
    few(repeated.count)
    return (repeated,)


@node(
    "LatentFromBatch",
    "Latent From Batch",
    "latent/batch",
    {"samples": SAMPLES, "batch_index": integer(0, 0, MOST_PICTURES - 1), "length": integer(1, 1, MOST_PICTURES)},
    "LATENT",
)
def from_batch(place: Place, *, samples: Latents, batch_index: int, length: int) -> tuple[Latents]:  # noqa: ARG001
    """Take some of several latents; what would lie behind the last one is left out, and one is always taken."""
    first = min(batch_index, samples.count - 1)
    taken = slice(first, first + length)
    count = len(range(samples.count)[taken])
    return (replace(samples, nodes=samples.nodes[taken], count=count, metadata=samples.metadata[taken]),)
