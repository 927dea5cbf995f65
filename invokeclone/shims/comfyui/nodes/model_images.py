"""Nodes for images that models read themselves: reference images, and images with a part to repaint."""

from dataclasses import replace

from invokeclone.components.flux.reference_sizes import closest_size
from invokeclone.graph.recipes import ReferenceImage
from invokeclone.shims.comfyui.node_types import BuildContext, NodeInput, choice, integer, link, node
from invokeclone.shims.comfyui.nodes.images import IMAGE, check_image_size, crop_to_aspect, resize_images
from invokeclone.shims.comfyui.nodes.latents import encode
from invokeclone.shims.comfyui.nodes.prompts import CONDITIONING
from invokeclone.shims.comfyui.values import EncodedPrompts, ImageBatch, Latents, Mask, MaskedImage, Vae

COLORS = {"white": (255, 255, 255), "black": (0, 0, 0), "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
MAX_SPACING = 1024


@node(
    "ReferenceLatent",
    "ReferenceLatent",
    "advanced/conditioning/edit_models",
    {"conditioning": CONDITIONING, "latent": link("LATENT", optional=True)},
    "CONDITIONING",
)
def add_reference(
    context: BuildContext, *, conditioning: EncodedPrompts, latent: Latents | None = None
) -> tuple[EncodedPrompts]:
    """Add a reference image, for models that read it themselves. The latents must be those of one encoded image."""
    if latent is None:
        return (conditioning,)
    if latent.image is None:
        context.refuse("the latents must be those of one image: connect a VAEEncode node")
    for text in conditioning.texts:
        context.require(text.clip.model.config, "reads_references")
    context.unused += latent.nodes
    reference = ReferenceImage(None, latent.image)
    return (replace(conditioning, references=(*conditioning.references, reference)),)


@node(
    "InpaintModelConditioning",
    "InpaintModelConditioning",
    "conditioning/inpaint",
    {
        "positive": CONDITIONING,
        "negative": CONDITIONING,
        "vae": link("VAE"),
        "pixels": IMAGE,
        "mask": link("MASK"),
        "noise_mask": NodeInput("BOOLEAN", default=True),
    },
    ("CONDITIONING", "positive"),
    ("CONDITIONING", "negative"),
    ("LATENT", "latent"),
)
def inpaint(
    context: BuildContext,
    *,
    positive: EncodedPrompts,
    negative: EncodedPrompts,
    vae: Vae,
    pixels: ImageBatch,
    mask: Mask,
    noise_mask: bool,
) -> tuple[EncodedPrompts, EncodedPrompts, Latents]:
    """Give an inpainting model an image and its part to repaint; other models repaint the part of the latents."""
    if len(pixels.nodes) > 1:
        context.refuse("only one image can be repainted: add a node for each image")
    reads_image = any(text.clip.model.recipe.reads_masked_image for text in positive.texts)
    if not noise_mask and not reads_image:
        context.warn("noise_mask: the part outside of the mask stays as it is")
    (latents,) = encode(context, pixels=pixels, vae=vae)
    masked_image = MaskedImage(pixels.nodes[0], mask)
    return (
        replace(positive, masked_image=masked_image),
        replace(negative, masked_image=masked_image),
        replace(latents, mask=mask),
    )


@node(
    "InstructPixToPixConditioning",
    "InstructPixToPixConditioning",
    "conditioning/instructpix2pix",
    {"positive": CONDITIONING, "negative": CONDITIONING, "vae": link("VAE"), "pixels": IMAGE},
    ("CONDITIONING", "positive"),
    ("CONDITIONING", "negative"),
    ("LATENT", "latent"),
)
def add_control_image(
    context: BuildContext, *, positive: EncodedPrompts, negative: EncodedPrompts, vae: Vae, pixels: ImageBatch
) -> tuple[EncodedPrompts, EncodedPrompts, Latents]:
    """Set the control image of a control LoRA; the latents are empty and of its size."""
    if len(pixels.nodes) > 1:
        context.refuse("a control LoRA takes one image: select one with ImageFromBatch")
    image = pixels.nodes[0]
    return (
        replace(positive, control_image=image),
        replace(negative, control_image=image),
        Latents(width=pixels.width, height=pixels.height, vae=vae),
    )


@node(
    "FluxKontextMultiReferenceLatentMethod",
    "Edit Model Reference Method",
    "advanced/conditioning/flux",
    {"conditioning": CONDITIONING, "reference_latents_method": choice("offset", open_list=True)},
    "CONDITIONING",
)
def set_reference_positions(
    context: BuildContext, *, conditioning: EncodedPrompts, reference_latents_method: str
) -> tuple[EncodedPrompts]:
    """Set the positions of several reference images; the model determines them."""
    if reference_latents_method != "offset":
        context.warn(f"reference_latents_method {reference_latents_method} was not used: the model sets the positions")
    return (conditioning,)


# Sizes of reference images


@node("FluxKontextImageScale", "FluxKontextImageScale", "advanced/conditioning/flux", {"image": IMAGE}, "IMAGE")
def scale_reference(context: BuildContext, *, image: ImageBatch) -> tuple[ImageBatch]:
    """Crop and resize images to the closest size that FLUX.1 Kontext was trained with."""
    width, height = closest_size(image.width, image.height)
    return (resize_images(context, crop_to_aspect(context, image, width / height), "lanczos", width, height),)


@node(
    "ImageStitch",
    "Image Stitch",
    "image/transform",
    {
        "image1": IMAGE,
        "direction": choice("right", "down", "left", "up"),
        "match_image_size": NodeInput("BOOLEAN", default=True),
        "spacing_width": integer(0, 0, MAX_SPACING, step=2),
        "spacing_color": choice(*COLORS),
        "image2": link("IMAGE", optional=True),
    },
    "IMAGE",
)
def stitch(
    context: BuildContext,
    *,
    image1: ImageBatch,
    direction: str,
    match_image_size: bool,
    spacing_width: int,
    spacing_color: str,
    image2: ImageBatch | None = None,
) -> tuple[ImageBatch]:
    """Place an image beside another, which it is scaled to fit if `match_image_size` is set."""
    if image2 is None:
        return (image1,)
    if len(image1.nodes) > 1 or len(image2.nodes) > 1:
        context.refuse("only single images can be stitched: select one with ImageFromBatch")
    is_row = direction in ("right", "left")
    if match_image_size:
        factor = image1.height / image2.height if is_row else image1.width / image2.width
        size = max(1, round(image2.width * factor)), max(1, round(image2.height * factor))
        image2 = resize_images(context, image2, "lanczos", *size)
    pair = (image1, image2) if direction in ("right", "down") else (image2, image1)
    along = sum(image.width if is_row else image.height for image in pair) + spacing_width
    across = max(image.height if is_row else image.width for image in pair)
    width, height = check_image_size(context, *((along, across) if is_row else (across, along)))
    red, green, blue = COLORS[spacing_color]
    color = {"r": red, "g": green, "b": blue, "a": 255}
    joined = context.output("blank", "blank_image", "image", width=width, height=height, color=color)
    offset = 0
    for index, image in enumerate(pair):
        side = image.width if is_row else image.height
        middle = (across - (image.height if is_row else image.width)) // 2
        x, y = (offset, middle) if is_row else (middle, offset)
        pasted = {"base_image": joined, "image": image.nodes[0], "x": x, "y": y}
        joined = context.output(f"paste{index}", "img_paste", "image", **pasted)
        offset += side + spacing_width
    return (ImageBatch((joined,), width, height),)
