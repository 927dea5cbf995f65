"""Reference images: IP-Adapters as the IPAdapter_plus pack has them, on models, and style models, on prompts."""

from dataclasses import replace

from invokeclone.components.control import image_encoders
from invokeclone.graph.recipes import ReferenceImage, ReferenceMethod, StyleImage
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.queue.generation import ExtraModelNotInstalled, identifier, image_encoder, recipe_for
from invokeclone.shims.comfyui.node_types import BuildContext, choice, link, list_choice, node, number
from invokeclone.shims.comfyui.nodes.images import crop_to_aspect
from invokeclone.shims.comfyui.values import (
    EncodedImages,
    EncodedPrompts,
    ImageBatch,
    ImageEncoderValue,
    IPAdapterValue,
    Mask,
    Model,
    StyleModelValue,
)

CATEGORY = "ipadapter"
MAX_WEIGHT = 2.0
SIMPLE_METHODS: dict[str, ReferenceMethod] = {"standard": "full", "style transfer": "style"}
METHODS: dict[str, ReferenceMethod] = {
    "linear": "full",
    "style transfer": "style",
    "composition": "composition",
    "strong style transfer": "style_strong",
    "style transfer precise": "style_precise",
}
"""The supported weight types of the pack."""
PRESETS = {
    "LIGHT - SD1.5 only (low strength)": "light",
    "STANDARD (medium strength)": "standard",
    "VIT-G (medium strength)": "vit-g",
    "PLUS (high strength)": "plus",
    "PLUS FACE (portraits)": "plus-face",
    "FULL FACE - SD1.5 only (portraits stronger)": "full-face",
}
"""The pack's presets, and the part of the names of published IP-Adapters that stands for each."""
COMMON = {"model": link("MODEL"), "ipadapter": link("IPADAPTER"), "image": link("IMAGE")}
RANGE = {"start_at": number(0.0, 0.0, 1.0, step=0.001), "end_at": number(1.0, 0.0, 1.0, step=0.001)}
MASK = link("MASK", optional=True)


@node("CLIPVisionLoader", "Load CLIP Vision", "loaders", {"clip_name": list_choice("clip_vision")}, "CLIP_VISION")
def load_image_encoder(context: BuildContext, *, clip_name: str) -> tuple[ImageEncoderValue]:
    """Load a CLIP vision model."""
    return (ImageEncoderValue(context.find("clip_vision", clip_name)),)


@node(
    "IPAdapterModelLoader",
    "IPAdapter Model Loader",
    CATEGORY,
    {"ipadapter_file": list_choice("ipadapter")},
    "IPADAPTER",
)
def load(context: BuildContext, *, ipadapter_file: str) -> tuple[IPAdapterValue]:
    """Load an IP-Adapter."""
    return (IPAdapterValue(context.find("ipadapter", ipadapter_file)),)


@node(
    "IPAdapterUnifiedLoader",
    "IPAdapter Unified Loader",
    CATEGORY,
    {"model": link("MODEL"), "preset": choice(*PRESETS), "ipadapter": link("IPADAPTER", optional=True)},
    "MODEL",
    ("IPADAPTER", "ipadapter"),
)
def load_preset(
    context: BuildContext,
    *,
    model: Model,
    preset: str,
    ipadapter: IPAdapterValue | None = None,  # noqa: ARG001  (models are loaded once anyway)
) -> tuple[Model, IPAdapterValue]:
    """Load the installed IP-Adapter of a preset that is for the model."""
    context.require(model.config, "reference_images")
    adapters = [adapter for adapter in context.catalog.ip_adapters if adapter.base == model.config.base]
    adapter = next((adapter for adapter in adapters if image_encoders.adapter_kind(adapter) == PRESETS[preset]), None)
    if adapter is None:
        names = ", ".join(adapter.name for adapter in adapters) or "none"
        context.refuse(
            f"no IP-Adapter of the preset {preset} for {model.config.base} models is installed: install it, or select "
            f"one of those that are ({names}) with IPAdapterModelLoader"
        )
    return model, IPAdapterValue(adapter)


@node(
    "IPAdapter",
    "IPAdapter",
    CATEGORY,
    {
        **COMMON,
        "weight": number(1.0, -1.0, 3.0, step=0.05),
        **RANGE,
        "weight_type": choice(*SIMPLE_METHODS),
        "attn_mask": MASK,
    },
    "MODEL",
)
def apply(
    context: BuildContext,
    *,
    model: Model,
    ipadapter: IPAdapterValue,
    image: ImageBatch,
    weight: float,
    start_at: float,
    end_at: float,
    weight_type: str,
    attn_mask: Mask | None = None,
) -> tuple[Model]:
    """Apply an IP-Adapter with a reference image to a model."""
    reference = _reference(context, model, ipadapter, None, image, attn_mask)
    method = SIMPLE_METHODS[weight_type]
    return (
        _add_reference(context, model, replace(reference, weight=weight, begin=start_at, end=end_at, method=method)),
    )


@node(
    "IPAdapterAdvanced",
    "IPAdapter Advanced",
    CATEGORY,
    {
        **COMMON,
        "weight": number(1.0, -1.0, 5.0, step=0.05),
        "weight_type": choice(*METHODS),
        "combine_embeds": choice("concat", "add", "subtract", "average", "norm average"),
        **RANGE,
        "embeds_scaling": choice("V only"),
        "image_negative": link("IMAGE", optional=True),
        "attn_mask": MASK,
        "clip_vision": link("CLIP_VISION", optional=True),
    },
    "MODEL",
)
def apply_advanced(
    context: BuildContext,
    *,
    model: Model,
    ipadapter: IPAdapterValue,
    image: ImageBatch,
    weight: float,
    weight_type: str,
    combine_embeds: str,  # noqa: ARG001  (only for several images)
    start_at: float,
    end_at: float,
    embeds_scaling: str,  # noqa: ARG001  (there is one choice)
    image_negative: ImageBatch | None = None,
    attn_mask: Mask | None = None,
    clip_vision: ImageEncoderValue | None = None,
) -> tuple[Model]:
    """Apply an IP-Adapter with a reference image to some layers and steps of a model."""
    if image_negative is not None:
        context.refuse("negative images are not supported")
    reference = _reference(context, model, ipadapter, clip_vision, image, attn_mask)
    method = METHODS[weight_type]
    return (
        _add_reference(context, model, replace(reference, weight=weight, begin=start_at, end=end_at, method=method)),
    )


def _reference(
    context: BuildContext,
    model: Model,
    adapter: IPAdapterValue,
    encoder: ImageEncoderValue | None,
    image: ImageBatch,
    mask: Mask | None,
) -> ReferenceImage:
    if len(image.nodes) > 1:
        context.refuse("an IP-Adapter node takes one image: add a node for each image")
    encoder_name = None if encoder is None else image_encoders.node_name_of(encoder.config.name)
    if encoder is not None and encoder_name is None:
        context.refuse(f"{encoder.config.name} is not a known image encoder of IP-Adapters")
    try:
        name = image_encoder(context.catalog.image_encoders, adapter.config, encoder_name)
    except ExtraModelNotInstalled as error:
        context.refuse(str(error))
    context.require(model.config, "reference_images")
    if adapter.config.base != model.config.base:
        name, base = adapter.config.name, adapter.config.base
        context.refuse(f"{name} is for {base} models, {model.config.name} is {model.config.base}")
    region = mask.to_image(context, "region", white_changes=True) if mask else None
    return ReferenceImage(identifier(adapter.config), image.nodes[0], name, mask=region)


def _add_reference(context: BuildContext, model: Model, reference: ReferenceImage) -> Model:
    if reference.weight > MAX_WEIGHT:
        context.refuse(f"an IP-Adapter's weight is at most {MAX_WEIGHT:g}, not {reference.weight:g}")
    if not reference.weight or reference.begin >= reference.end:
        return model
    return replace(model, references=(*model.references, reference))


# Style models


@node(
    "StyleModelLoader", "Load Style Model", "loaders", {"style_model_name": list_choice("style_models")}, "STYLE_MODEL"
)
def load_style_model(context: BuildContext, *, style_model_name: str) -> tuple[StyleModelValue]:
    """Load a model that appends images to prompts, such as FLUX Redux."""
    return (StyleModelValue(context.find("style_models", style_model_name)),)


@node(
    "CLIPVisionEncode",
    "CLIP Vision Encode",
    "conditioning",
    {"clip_vision": link("CLIP_VISION"), "image": link("IMAGE"), "crop": choice("center", "none")},
    "CLIP_VISION_OUTPUT",
)
def encode_for_style_model(
    context: BuildContext, *, clip_vision: ImageEncoderValue, image: ImageBatch, crop: str
) -> tuple[EncodedImages]:
    """Select images for a style model; they are squeezed to squares, or cropped around their center first."""
    images = crop_to_aspect(context, image, 1.0) if crop == "center" else image
    return (EncodedImages(clip_vision.config, images.nodes),)


@node(
    "StyleModelApply",
    "Apply Style Model",
    "conditioning/style_model",
    {
        "conditioning": link("CONDITIONING"),
        "style_model": link("STYLE_MODEL"),
        "clip_vision_output": link("CLIP_VISION_OUTPUT"),
        "strength": number(1.0, 0.0, 10.0, step=0.001),
        "strength_type": choice("multiply", "attn_bias"),
    },
    "CONDITIONING",
)
def apply_style_model(
    context: BuildContext,
    *,
    conditioning: EncodedPrompts,
    style_model: StyleModelValue,
    clip_vision_output: EncodedImages,
    strength: float,
    strength_type: str,
) -> tuple[EncodedPrompts]:
    """Append images to prompts. Their part of the prompt is multiplied by the strength, 1 at most."""
    if strength_type == "attn_bias" and not strength:
        return (conditioning,)
    if strength_type == "attn_bias" and strength != 1.0:
        context.refuse(f"attn_bias with a strength of {strength:g} is not supported: select multiply, or 1")
    if strength > 1.0:
        context.refuse(f"a style model's strength is at most 1, not {strength:g}")
    for text in conditioning.texts:
        _check_style_model(context, style_model.config, clip_vision_output.encoder, text.clip.model)
    images = tuple(StyleImage(identifier(style_model.config), image, strength) for image in clip_vision_output.images)
    texts = tuple(replace(text, styles=(*text.styles, *images)) for text in conditioning.texts)
    return (replace(conditioning, texts=texts),)


def _check_style_model(context: BuildContext, style: ModelConfig, encoder: ModelConfig, model: Model) -> None:
    """Refuse a style model for another base, and an image encoder that it does not work with."""
    context.require(model.config, "style_images")
    if style.base != model.config.base:
        context.refuse(f"{style.name} is for {style.base} models, {model.config.name} is {model.config.base}")
    kind = recipe_for(model.config).style_model
    if kind is not None and encoder.type != kind.image_encoder:
        context.refuse(
            f"{style.name} needs an image encoder of the type {kind.image_encoder}, {encoder.name} is {encoder.type}: "
            "select another one in CLIPVisionLoader"
        )
