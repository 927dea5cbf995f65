"""Nodes that combine a ControlNet, an IP-Adapter or Redux with an image, and their use by the denoise node."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

from invokeclone.components.control.fields import (
    CONTROLNET_RESIZE_VALUES,
    ControlChecks,
    IPAdapterField,
    IPAdapterOutput,
)
from invokeclone.components.control.image_encoders import find_image_encoder
from invokeclone.families.flux.fields import (
    FluxControlNetField,
    FluxControlNetOutput,
    FluxReduxConditioningField,
    FluxReduxOutput,
)
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, Classification, invocation
from invokeclone.graph.invocations.metadata import check_base, check_exists, check_type
from invokeclone.graph.vocabulary.fields import FieldDescriptions, ImageField, InputField, TensorField, with_schema
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType

if TYPE_CHECKING:
    from invokeclone.families.flux.controlnet import FluxControlNet
    from invokeclone.families.flux.ip_adapter import FluxImagePrompt

_BEGIN = "Where it starts, as a fraction of the steps"
_END = "Where it stops, as a fraction of the steps"
DOWNSAMPLING_FUNCTIONS = Literal["nearest", "bilinear", "bicubic", "area", "nearest-exact"]


@invocation(
    "flux_controlnet", title="FLUX ControlNet", tags=["controlnet", "flux"], category="conditioning", version="1.0.0"
)
class FluxControlNetInvocation(ControlChecks, BaseInvocation):
    """Combine a ControlNet with its image for the denoise node."""

    image: ImageField = InputField(description="The control image")
    control_model: ModelIdentifierField = InputField(
        description=FieldDescriptions.controlnet_model,
        ui_model_base=BaseModelType.Flux,
        ui_model_type=ModelType.ControlNet,
    )
    control_weight: float | list[float] = with_schema(
        InputField(default=1.0, description="Weight from -1 to 2, or one weight per step; below 0 has no effect"),
        ge=-1,
        le=2,
    )  # as constraints, ge and le would fail for a list
    begin_step_percent: float = InputField(default=0, ge=0, le=1, description=_BEGIN)
    end_step_percent: float = InputField(default=1, ge=0, le=1, description=_END)
    resize_mode: CONTROLNET_RESIZE_VALUES = InputField(default="just_resize", description="How the image is resized")
    instantx_control_mode: int | None = InputField(
        default=-1, description="Mode of union models, such as 0 for canny and 2 for depth; -1 for none"
    )

    def invoke(self, context: InvocationContext) -> FluxControlNetOutput:
        """Return the combination. Raises for a missing image."""
        context.images.get_dto(self.image.image_name)
        return FluxControlNetOutput(
            control=FluxControlNetField(
                image=self.image,
                control_model=self.control_model,
                control_weight=self.control_weight,
                begin_step_percent=self.begin_step_percent,
                end_step_percent=self.end_step_percent,
                resize_mode=self.resize_mode,
                instantx_control_mode=self.instantx_control_mode,
            )
        )


@invocation(
    "flux_ip_adapter",
    title="FLUX IP-Adapter",
    tags=["ip_adapter", "control"],
    category="conditioning",
    version="1.0.0",
)
class FluxIPAdapterInvocation(ControlChecks, BaseInvocation):
    """Use an image as a prompt for the denoise node."""

    image: ImageField = InputField(description="The prompt image")
    ip_adapter_model: ModelIdentifierField = InputField(
        description="The IP-Adapter",
        title="IP-Adapter Model",
        ui_model_base=BaseModelType.Flux,
        ui_model_type=ModelType.IPAdapter,
    )
    clip_vision_model: Literal["ViT-L"] = InputField(description="The CLIP vision model", default="ViT-L")
    weight: float | list[float] = InputField(default=1, description="Weight, or one weight per step")
    begin_step_percent: float = InputField(default=0, ge=0, le=1, description=_BEGIN)
    end_step_percent: float = InputField(default=1, ge=0, le=1, description=_END)

    def invoke(self, context: InvocationContext) -> IPAdapterOutput:
        """Find the image encoder and return the combination."""
        check_type(context, self.ip_adapter_model, ModelType.IPAdapter)
        return IPAdapterOutput(
            ip_adapter=IPAdapterField(
                image=self.image,
                ip_adapter_model=self.ip_adapter_model,
                image_encoder_model=find_image_encoder(context, self.clip_vision_model),
                weight=self.weight,
                target_blocks=[],
                begin_step_percent=self.begin_step_percent,
                end_step_percent=self.end_step_percent,
            )
        )


@invocation(
    "flux_redux",
    title="FLUX Redux",
    tags=["ip_adapter", "control"],
    category="conditioning",
    version="2.1.0",
    classification=Classification.Beta,
)
class FluxReduxInvocation(BaseInvocation):
    """Encode an image as additional tokens of the prompt."""

    image: ImageField = InputField(description="The image")
    mask: TensorField | None = InputField(
        default=None, description="Boolean mask of the region that the image applies to; default: the whole image"
    )
    redux_model: ModelIdentifierField = InputField(
        description="The Redux model",
        title="FLUX Redux Model",
        ui_model_base=BaseModelType.Flux,
        ui_model_type=ModelType.FluxRedux,
    )
    downsampling_factor: int = InputField(
        default=1, ge=1, le=9, description="Factor by which the tokens are reduced along each side"
    )
    downsampling_function: DOWNSAMPLING_FUNCTIONS = InputField(default="area", description="How the tokens are reduced")
    weight: float = InputField(default=1.0, ge=0.0, le=1.0, description="Weight of the image; it is squared")

    def invoke(self, context: InvocationContext) -> FluxReduxOutput:
        """Encode the image."""
        from invokeclone.engine.loaded import device_of
        from invokeclone.families.flux import redux

        check_exists(context, self.redux_model)
        image = context.images.get_pil(self.image.image_name, mode="RGB")
        encoder_info = context.models.load(_siglip(context))
        redux_info = context.models.load(self.redux_model)
        with encoder_info as encoder, redux_info as model:
            devices = device_of(encoder_info, encoder), device_of(redux_info, model)
            tokens = redux.encode(encoder, model, image, *devices)
        tokens = redux.weaken(tokens, self.downsampling_factor, self.downsampling_function, self.weight)
        name = context.tensors.save(tokens)
        conditioning = FluxReduxConditioningField(conditioning=TensorField(tensor_name=name), mask=self.mask)
        return FluxReduxOutput(redux_cond=conditioning)


def _siglip(context: InvocationContext) -> ModelIdentifierField:
    """Return the installed SigLIP model. Raises ValueError if there is none."""
    for config in context.models.search_by_attrs(type=ModelType.SigLIP):
        return ModelIdentifierField(
            key=config.key, hash=config.hash, name=config.name, base=config.base, type=config.type
        )
    message = "FLUX Redux needs a SigLIP model: install google/siglip-so400m-patch14-384 (it is a starter model)"
    raise ValueError(message)


def controlnets(
    context: InvocationContext, stack: ExitStack, fields: Sequence[FluxControlNetField], node: Any, transformer: Any
) -> "list[FluxControlNet]":
    """Return the ControlNets of a denoise node; `stack` holds their models.

    Raises ValueError for models of another base, and if there is no VAE to encode the images of those that need it.
    """
    return [_controlnet(context, stack, field, node, transformer) for field in fields]


def _controlnet(
    context: InvocationContext, stack: ExitStack, field: FluxControlNetField, node: Any, transformer: Any
) -> "FluxControlNet":
    import torch

    from invokeclone.components.control.images import prepare
    from invokeclone.engine.loaded import device_of
    from invokeclone.families.flux.controlnet import FluxControlNet, is_xlabs
    from invokeclone.families.flux.nodes.images import require_vae
    from invokeclone.families.flux.reference_images import control_tokens

    check_exists(context, field.control_model)
    check_base(context.models.get_config(field.control_model.key), BaseModelType.Flux)
    net = stack.enter_context(context.models.load(field.control_model))
    array = prepare(context.images.get_pil(field.image.image_name), (node.width, node.height), field.resize_mode)
    image = torch.from_numpy(array).permute(2, 0, 1)[None] * 2.0 - 1.0
    if not is_xlabs(net):
        loaded = context.models.load(require_vae(node.controlnet_vae, "control").vae)
        with loaded as vae:
            image = control_tokens(vae, image, device_of(loaded, vae)).cpu()
    return FluxControlNet(
        net,
        image,
        (len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)),
        field.control_weight,
        field.begin_step_percent,
        field.end_step_percent,
        field.instantx_control_mode,
    )


def image_prompts(context: InvocationContext, fields: Sequence[IPAdapterField]) -> "list[FluxImagePrompt]":
    """Return the images of IP-Adapters, encoded. Raises ValueError for adapters of another base, or several images."""
    return [_image_prompt(context, field) for field in fields]


def _image_prompt(context: InvocationContext, field: IPAdapterField) -> "FluxImagePrompt":
    from invokeclone.engine.loaded import device_of
    from invokeclone.families.flux.ip_adapter import FluxImagePrompt, encode

    check_exists(context, field.ip_adapter_model)
    check_type(context, field.ip_adapter_model, ModelType.IPAdapter)
    check_base(context.models.get_config(field.ip_adapter_model.key), BaseModelType.Flux)
    images = field.image if isinstance(field.image, list) else [field.image]
    if len(images) != 1:
        message = f"IP-Adapters of FLUX.1 take one image, not {len(images)}: use one node per image"
        raise ValueError(message)
    image = context.images.get_pil(images[0].image_name, mode="RGB")
    encoder_info = context.models.load(field.image_encoder_model)
    adapter_info = context.models.load(field.ip_adapter_model)
    with encoder_info as encoder, adapter_info as adapter:
        devices = device_of(adapter_info, adapter), device_of(encoder_info, encoder)
        positive, negative = encode(adapter, encoder, image, *devices)
    return FluxImagePrompt(positive, negative, field.weight, field.begin_step_percent, field.end_step_percent)
