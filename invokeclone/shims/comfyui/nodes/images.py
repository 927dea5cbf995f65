"""Nodes that load, create, resize, combine and save images."""

import math
from dataclasses import replace

from invokeclone.graph.builder import NodeOutput
from invokeclone.queue.generation import MAX_SIDE, SizeOverLimits, is_within_limits
from invokeclone.shims.comfyui.node_types import (
    MAX_IMAGES,
    BuildContext,
    NodeInput,
    choice,
    integer,
    link,
    list_choice,
    node,
    number,
)
from invokeclone.shims.comfyui.values import ImageBatch, Mask, check_image_count

METHODS = {
    "nearest-exact": "nearest",
    "bilinear": "bilinear",
    "area": "box",
    "bicubic": "bicubic",
    "lanczos": "lanczos",
}
"""ComfyUI's resize methods, and the matching ones of the graph's nodes."""
IMAGE = link("IMAGE")
IMAGE_FILE = list_choice("images", open_list=True)
GRAY = {"r": 127, "g": 127, "b": 127, "a": 255}
MEGAPIXEL = 1024 * 1024


def find_image(context: BuildContext, name: str) -> tuple[dict[str, str], int, int]:
    """Return an image of the user as the value of an image field, and its size; refuses an unknown one."""
    loadable_image = context.catalog.loadable_images.get(name)
    if loadable_image is None:
        context.refuse(f"Invalid image file: {name}")
    return {"image_name": loadable_image.image_name}, loadable_image.width, loadable_image.height


def check_image_size(context: BuildContext, width: int, height: int) -> tuple[int, int]:
    """Return a size of images; refuses one that is empty or over the limits."""
    if min(width, height) < 1:
        context.refuse(f"the image would be empty: {width}x{height}")
    if not is_within_limits(width, height):
        context.refuse(str(SizeOverLimits(width, height)))
    return width, height


def map_images(
    context: BuildContext, images: ImageBatch, role: str, node_type: str, **inputs: object
) -> tuple[NodeOutput, ...]:
    """Add a node to the graph for each image."""
    return tuple(
        context.output(f"{role}{index}", node_type, "image", image=source, **inputs)
        for index, source in enumerate(images.nodes)
    )


@node("LoadImageOutput", "Load Image (from Outputs)", "image", {"image": IMAGE_FILE}, "IMAGE", "MASK")
@node("LoadImage", "Load Image", "image", {"image": IMAGE_FILE}, "IMAGE", "MASK")
def load(context: BuildContext, *, image: str) -> tuple[ImageBatch, Mask]:
    """Load an image; the mask is white where it is transparent."""
    field, width, height = find_image(context, image)
    rgb = context.output("image", "img_conv", "image", image=field, mode="RGB")
    alpha = context.output("alpha", "img_chan", "image", image=field, channel="A")
    return ImageBatch((rgb,), width, height), Mask(alpha, width, height, white_changes=False)


@node(
    "EmptyImage",
    "EmptyImage",
    "image",
    {
        "width": integer(512, 1, MAX_SIDE),
        "height": integer(512, 1, MAX_SIDE),
        "batch_size": integer(1, 1, MAX_IMAGES),
        "color": integer(0, 0, 0xFFFFFF),
    },
    "IMAGE",
)
def empty(context: BuildContext, *, width: int, height: int, batch_size: int, color: int) -> tuple[ImageBatch]:
    """Create images of one color, given as 0xRRGGBB."""
    check_image_size(context, width, height)
    red, green, blue = color >> 16, color >> 8 & 255, color & 255
    rgba = {"r": red, "g": green, "b": blue, "a": 255}
    blank = context.output("blank", "blank_image", "image", width=width, height=height, color=rgba)
    return (ImageBatch((blank,) * batch_size, width, height),)


# Sizes


@node(
    "ImageScale",
    "Upscale Image",
    "image/upscaling",
    {
        "image": IMAGE,
        "upscale_method": choice(*METHODS),
        "width": integer(512, 0, MAX_SIDE),
        "height": integer(512, 0, MAX_SIDE),
        "crop": choice("disabled", "center"),
    },
    "IMAGE",
)
def scale(
    context: BuildContext, *, image: ImageBatch, upscale_method: str, width: int, height: int, crop: str
) -> tuple[ImageBatch]:
    """Resize images; a side of 0 is computed from the other one."""
    if not width and not height:
        return (image,)
    width = width or max(1, round(image.width * height / image.height))
    height = height or max(1, round(image.height * width / image.width))
    if crop == "center":
        image = crop_to_aspect(context, image, width / height)
    return (resize_images(context, image, upscale_method, width, height),)


def crop_to_aspect(context: BuildContext, image: ImageBatch, aspect: float) -> ImageBatch:
    """Crop images around their center to an aspect ratio."""
    width, height = min(image.width, round(image.height * aspect)), min(image.height, round(image.width / aspect))
    if (width, height) == (image.width, image.height):
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return _crop_images(context, image, left, top, max(1, width), max(1, height))


def _crop_images(context: BuildContext, image: ImageBatch, left: int, top: int, width: int, height: int) -> ImageBatch:
    cropped = replace(
        image, nodes=map_images(context, image, "crop", "img_crop", x=left, y=top, width=width, height=height)
    )
    return replace(
        cropped, nodes=map_images(context, cropped, "opaque", "img_conv", mode="RGB"), width=width, height=height
    )


def resize_images(context: BuildContext, image: ImageBatch, method: str, width: int, height: int) -> ImageBatch:
    """Resize images with one of ComfyUI's methods."""
    check_image_size(context, width, height)
    nodes = map_images(
        context, image, "resize", "img_resize", width=width, height=height, resample_mode=METHODS[method]
    )
    return replace(image, nodes=nodes, width=width, height=height)


@node(
    "ImageScaleBy",
    "Upscale Image By",
    "image/upscaling",
    {"image": IMAGE, "upscale_method": choice(*METHODS), "scale_by": number(1.0, 0.01, 8.0)},
    "IMAGE",
)
def scale_by(context: BuildContext, *, image: ImageBatch, upscale_method: str, scale_by: float) -> tuple[ImageBatch]:
    """Scale images by a factor."""
    return (
        resize_images(context, image, upscale_method, round(image.width * scale_by), round(image.height * scale_by)),
    )


@node(
    "ImageScaleToTotalPixels",
    "Scale Image to Total Pixels",
    "image/upscaling",
    {"image": IMAGE, "upscale_method": choice(*METHODS), "megapixels": number(1.0, 0.01, 16.0)},
    "IMAGE",
)
def scale_to_total(
    context: BuildContext, *, image: ImageBatch, upscale_method: str, megapixels: float
) -> tuple[ImageBatch]:
    """Resize images to an area, keeping their aspect ratio."""
    factor = math.sqrt(megapixels * MEGAPIXEL / (image.width * image.height))
    width, height = (max(1, round(side * factor)) for side in (image.width, image.height))
    return (resize_images(context, image, upscale_method, width, height),)


@node(
    "ImageCrop",
    "Image Crop",
    "image/transform",
    {
        "image": IMAGE,
        "width": integer(512, 1, MAX_SIDE),
        "height": integer(512, 1, MAX_SIDE),
        "x": integer(0, 0, MAX_SIDE),
        "y": integer(0, 0, MAX_SIDE),
    },
    "IMAGE",
)
def crop(context: BuildContext, *, image: ImageBatch, width: int, height: int, x: int, y: int) -> tuple[ImageBatch]:
    """Crop images to a rectangle, as far as it lies inside of them."""
    left, top = min(x, image.width - 1), min(y, image.height - 1)
    return (_crop_images(context, image, left, top, min(width, image.width - left), min(height, image.height - top)),)


@node(
    "ImagePadForOutpaint",
    "Pad Image for Outpainting",
    "image",
    {
        "image": IMAGE,
        **{side: integer(0, 0, MAX_SIDE, step=8) for side in ("left", "top", "right", "bottom")},
        "feathering": integer(40, 0, MAX_SIDE),
    },
    "IMAGE",
    "MASK",
)
def pad(
    context: BuildContext, *, image: ImageBatch, left: int, top: int, right: int, bottom: int, feathering: int
) -> tuple[ImageBatch, Mask]:
    """Add gray borders; the mask is white there, and fades into the image."""
    width, height = check_image_size(context, image.width + left + right, image.height + top + bottom)
    sides = {"left": left, "top": top, "right": right, "bottom": bottom}
    padded = replace(
        image, nodes=map_images(context, image, "pad", "img_pad_crop", **sides), width=width, height=height
    )
    filled_nodes = map_images(context, padded, "fill", "infill_rgba", color=GRAY)
    opaque = map_images(context, replace(padded, nodes=filled_nodes), "opaque", "img_conv", mode="RGB")
    keep_mask = context.output("keep_mask", "tomask", "image", image=padded.nodes[0])
    if feathering:
        keep_mask = context.output(
            "fade", "expand_mask_with_fade", "image", mask=keep_mask, threshold=0, fade_size_px=feathering
        )
    return replace(padded, nodes=opaque), Mask(keep_mask, width, height, white_changes=False)


@node(
    "GetImageSize",
    "Get Image Size",
    "image",
    {"image": IMAGE},
    ("INT", "width"),
    ("INT", "height"),
    ("INT", "batch_size"),
)
def get_size(_context: BuildContext, *, image: ImageBatch) -> tuple[int, int, int]:
    """Get the size of images in pixels, and their number."""
    return image.width, image.height, len(image.nodes)


# Colors and batches


@node(
    "Canny",
    "Canny",
    "image/preprocessors",
    {"image": IMAGE, "low_threshold": number(0.4, 0.01, 0.99), "high_threshold": number(0.8, 0.01, 0.99)},
    "IMAGE",
)
def find_edges(
    context: BuildContext, *, image: ImageBatch, low_threshold: float, high_threshold: float
) -> tuple[ImageBatch]:
    """Find the edges in images."""
    thresholds = {"low_threshold": round(255 * low_threshold), "high_threshold": round(255 * high_threshold)}
    return (replace(image, nodes=map_images(context, image, "edges", "canny_edge_detection", **thresholds)),)


@node("ImageInvert", "Invert Image", "image", {"image": IMAGE}, "IMAGE")
def invert(context: BuildContext, *, image: ImageBatch) -> tuple[ImageBatch]:
    """Invert the colors."""
    return (replace(image, nodes=map_images(context, image, "invert", "invokeai_img_enhance", invert=True)),)


@node(
    "RepeatImageBatch",
    "RepeatImageBatch",
    "image/batch",
    {"image": IMAGE, "amount": integer(1, 1, MAX_IMAGES)},
    "IMAGE",
)
def repeat(context: BuildContext, *, image: ImageBatch, amount: int) -> tuple[ImageBatch]:  # noqa: ARG001
    """Repeat images."""
    check_image_count(len(image.nodes) * amount)
    return (replace(image, nodes=image.nodes * amount, metadata=image.metadata * amount),)


@node(
    "ImageFromBatch",
    "ImageFromBatch",
    "image/batch",
    {"image": IMAGE, "batch_index": integer(0, 0, MAX_IMAGES - 1), "length": integer(1, 1, MAX_IMAGES)},
    "IMAGE",
)
def from_batch(context: BuildContext, *, image: ImageBatch, batch_index: int, length: int) -> tuple[ImageBatch]:  # noqa: ARG001
    """Select a range of images, as far as it exists; at least one image is selected."""
    first = min(batch_index, len(image.nodes) - 1)
    selection = slice(first, first + length)
    return (replace(image, nodes=image.nodes[selection], metadata=image.metadata[selection]),)


@node("ImageBatch", "Batch Images", "image", {"image1": IMAGE, "image2": IMAGE}, "IMAGE")
def batch(context: BuildContext, *, image1: ImageBatch, image2: ImageBatch) -> tuple[ImageBatch]:
    """Append images to others, resized to the size of the first."""
    check_image_count(len(image1.nodes) + len(image2.nodes))
    if (image2.width, image2.height) != (image1.width, image1.height):
        image2 = crop_to_aspect(context, image2, image1.width / image1.height)
        image2 = resize_images(context, image2, "bilinear", image1.width, image1.height)
    pairs = image1.images_with_metadata + image2.images_with_metadata
    return (
        replace(image1, nodes=tuple(image for image, _ in pairs), metadata=tuple(metadata for _, metadata in pairs)),
    )


# Outputs


@node(
    "SaveImage",
    "Save Image",
    "image",
    {
        "images": IMAGE,
        "filename_prefix": NodeInput("STRING", "ComfyUI", tooltip="Ignored: the server chooses the names of images."),
    },
    saves=True,
)
def save(context: BuildContext, *, images: ImageBatch, filename_prefix: str) -> tuple[()]:  # noqa: ARG001  (ignored)
    """Save images to the gallery."""
    for index, (image, metadata) in enumerate(images.images_with_metadata):
        saved = context.add(f"{SAVE_ROLE}{index}", "save_image", image=image, metadata=metadata)
        context.builder.result(saved, None)
    return ()


@node("PreviewImage", "Preview Image", "image", {"images": IMAGE}, saves=True)
def preview(context: BuildContext, *, images: ImageBatch) -> tuple[()]:
    """Show images without adding them to the gallery."""
    for index, (image, metadata) in enumerate(images.images_with_metadata):
        saved = context.add(f"{SAVE_ROLE}{index}", "save_image", image=image, metadata=metadata)
        context.builder.nodes[saved]["use_cache"] = False
    return ()


@node("SaveImageWebsocket", "SaveImageWebsocket", "api/image", {"images": IMAGE}, saves=True)
def send(context: BuildContext, *, images: ImageBatch) -> tuple[()]:
    """Send images to the client over its WebSocket, as PNG, without adding them to the gallery or to the history."""
    preview(context, images=images)
    return ()


SAVE_ROLE = "save"
"""The role of the graph's nodes whose images are results of an output node."""
