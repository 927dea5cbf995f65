"""The IP-Adapter node, and the encoding of its images for the denoise node."""

from typing import TYPE_CHECKING, Any

from invokeclone.components.control.fields import (
    CLIP_VISION_MODELS,
    IP_ADAPTER_METHODS,
    ControlChecks,
    IPAdapterField,
    IPAdapterOutput,
)
from invokeclone.components.control.image_encoders import encoder_name_of, find_image_encoder
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.metadata import check_type
from invokeclone.graph.vocabulary.fields import ImageField, InputField, TensorField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType

if TYPE_CHECKING:
    import torch

    from invokeclone.families.stable_diffusion.ip_adapter import ImagePrompt

_LAYERS: dict[str, tuple[str, ...]] = {
    "full": (),
    "style": ("up_blocks.1",),
    "composition": ("down_blocks.2", "mid_block"),
    "style_precise": ("up_blocks.1", "down_blocks.2", "mid_block"),
    "style_strong": ("up_blocks.0", "up_blocks.1", "up_blocks.2", "down_blocks.0", "down_blocks.1"),
}
"""Substrings of the names of the UNet layers that each method applies to in Stable Diffusion 1.

Empty for all layers.
"""
_LAYERS_XL: dict[str, tuple[str, ...]] = {
    "full": (),
    "style": ("up_blocks.0.attentions.1",),
    "composition": ("down_blocks.2.attentions.1",),
    "style_precise": ("up_blocks.0.attentions.1", "down_blocks.2.attentions.1"),
    "style_strong": (
        *(f"up_blocks.{block}.attentions.{layer}" for block in range(3) for layer in range(3)),
        *(f"down_blocks.{block}.attentions.{layer}" for block in range(2) for layer in range(3)),
        "down_blocks.2.attentions.0",
        "down_blocks.2.attentions.2",
    ),
}
"""The same for Stable Diffusion XL."""
_PRECISE = "style_precise"
"""The method whose composition layers steer away from the composition of the images."""


def _layers(base: BaseModelType) -> dict[str, tuple[str, ...]]:
    return _LAYERS_XL if base is BaseModelType.StableDiffusionXL else _LAYERS


@invocation(
    "ip_adapter",
    title="IP-Adapter - SD1.5, SDXL",
    tags=["ip_adapter", "control"],
    category="conditioning",
    version="1.5.1",
)
class IPAdapterInvocation(ControlChecks, BaseInvocation):
    """Use images as a prompt for the denoise node."""

    image: ImageField | list[ImageField] = InputField(description="The prompt image(s)", ui_order=1)
    ip_adapter_model: ModelIdentifierField = InputField(
        description="The IP-Adapter",
        title="IP-Adapter Model",
        ui_order=-1,
        ui_model_base=[BaseModelType.StableDiffusion1, BaseModelType.StableDiffusionXL],
        ui_model_type=ModelType.IPAdapter,
    )
    clip_vision_model: CLIP_VISION_MODELS = InputField(
        default="ViT-H",
        description="The CLIP vision model, used if the adapter does not name one",
        title="Clip Vision Model",
        ui_order=2,
    )
    weight: float | list[float] = InputField(default=1, description="Weight, or one weight per step", title="Weight")
    method: IP_ADAPTER_METHODS = InputField(default="full", description="Which aspects of the image are used")
    begin_step_percent: float = InputField(
        default=0, ge=0, le=1, description="Where it starts, as a fraction of the steps"
    )
    end_step_percent: float = InputField(
        default=1, ge=0, le=1, description="Where it stops, as a fraction of the steps"
    )
    mask: TensorField | None = InputField(default=None, description="Mask of the region it applies to")

    def invoke(self, context: InvocationContext) -> IPAdapterOutput:
        """Find the image encoder and return the combination."""
        check_type(context, self.ip_adapter_model, ModelType.IPAdapter)
        adapter = context.models.get_config(self.ip_adapter_model.key)
        encoder = encoder_name_of(adapter) or self.clip_vision_model
        return IPAdapterOutput(
            ip_adapter=IPAdapterField(
                image=self.image,
                ip_adapter_model=self.ip_adapter_model,
                image_encoder_model=find_image_encoder(context, encoder),
                weight=self.weight,
                target_blocks=list(_layers(adapter.base)[self.method]),
                method=self.method,
                begin_step_percent=self.begin_step_percent,
                end_step_percent=self.end_step_percent,
                mask=self.mask,
            )
        )


def image_prompts(
    context: InvocationContext, fields: IPAdapterField | list[IPAdapterField] | None, base: BaseModelType
) -> "list[ImagePrompt]":
    """Return the images of IP-Adapters, encoded for a UNet of `base`.

    Raises ValueError for adapters of another base.
    """
    listed = fields if isinstance(fields, list) else [] if fields is None else [fields]
    return [_image_prompt(context, field, base) for field in listed]


def _image_prompt(context: InvocationContext, field: IPAdapterField, base: BaseModelType) -> "ImagePrompt":
    from invokeclone.engine.loaded import device_of
    from invokeclone.families.stable_diffusion.ip_adapter import ImagePrompt, encode

    # 1. the layers
    check_type(context, field.ip_adapter_model, ModelType.IPAdapter)
    config = context.models.get_config(field.ip_adapter_model)
    if config.base != base:
        message = f"The IP-Adapter {config.name} is for {config.base} models, but the UNet is from a {base} model"
        raise ValueError(message)
    layers = _layers(base)
    if field.method not in layers:
        message = f"unknown IP-Adapter method {field.method!r}; use one of {', '.join(layers)}"
        raise ValueError(message)
    # 2. the images
    listed = field.image if isinstance(field.image, list) else [field.image]
    if not listed:
        message = f"The IP-Adapter {config.name} needs at least one image"
        raise ValueError(message)
    images = [context.images.get_pil(image.image_name, mode="RGB") for image in listed]
    encoder_info = context.models.load(field.image_encoder_model)
    adapter_info = context.models.load(field.ip_adapter_model)
    with encoder_info as encoder, adapter_info as adapter:
        devices = device_of(adapter_info, adapter), device_of(encoder_info, encoder)
        positive, negative = encode(adapter, encoder, images, *devices)
    # 3. the image prompt
    return ImagePrompt(
        positive=positive,
        negative=negative,
        weight=field.weight,
        begin=field.begin_step_percent,
        end=field.end_step_percent,
        blocks=field.target_blocks or layers[field.method],
        negative_blocks=layers["composition"] if field.method == _PRECISE else (),
        mask=_mask(context, field.mask),
    )


def _mask(context: InvocationContext, field: TensorField | None) -> "torch.Tensor | None":
    """Return a mask (height, width)."""
    if field is None:
        return None
    mask: Any = context.tensors.load(field.tensor_name)
    if mask.ndim < 2 or mask.shape[:-2].numel() != 1:  # noqa: PLR2004 - height and width
        message = f"The mask of an IP-Adapter must be (1, height, width), not {tuple(mask.shape)}"
        raise ValueError(message)
    plane: torch.Tensor = mask.reshape(mask.shape[-2:])
    return plane
