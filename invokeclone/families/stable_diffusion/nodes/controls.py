"""Nodes that combine a control model with its image and settings. They load no model."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from invokeclone.components.control.fields import (
    CONTROLNET_MODE_VALUES,
    CONTROLNET_RESIZE_VALUES,
    ControlChecks,
    ControlField,
    ControlOutput,
    T2IAdapterField,
    T2IAdapterOutput,
)
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.metadata import check_type
from invokeclone.graph.vocabulary.fields import ImageField, InputField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType
from invokeclone.kit.files.image_modes import convert

if TYPE_CHECKING:
    from invokeclone.families.stable_diffusion.controlnet import ControlNet
    from invokeclone.families.stable_diffusion.t2i_adapter import T2IAdapter

_BEGIN = "Where it starts, as a fraction of the steps"
_END = "Where it stops, as a fraction of the steps"
_RESIZE = "How the image is resized"
_NAMES = {ModelType.ControlNet: "ControlNet", ModelType.T2IAdapter: "T2I-Adapter"}


@invocation(
    "controlnet",
    title="ControlNet - SD1.5, SD2, SDXL",
    tags=["controlnet"],
    category="conditioning",
    version="1.1.3",
)
class ControlNetInvocation(ControlChecks, BaseInvocation):
    """Combine a ControlNet with its image for the denoise node."""

    image: ImageField = InputField(description="The control image")
    control_model: ModelIdentifierField = InputField(
        description="The ControlNet, for the base of the main model",
        ui_model_base=[
            BaseModelType.StableDiffusion1,
            BaseModelType.StableDiffusion2,
            BaseModelType.StableDiffusionXL,
        ],
        ui_model_type=ModelType.ControlNet,
    )
    control_weight: float | list[float] = InputField(
        default=1.0, description="Weight from -1 to 2, or one weight per step"
    )
    begin_step_percent: float = InputField(default=0, ge=0, le=1, description=_BEGIN)
    end_step_percent: float = InputField(default=1, ge=0, le=1, description=_END)
    control_mode: CONTROLNET_MODE_VALUES = InputField(
        default="balanced", description="Balance between the prompt and the control image"
    )
    resize_mode: CONTROLNET_RESIZE_VALUES = InputField(default="just_resize", description=_RESIZE)

    def invoke(self, context: InvocationContext) -> ControlOutput:
        """Return the combination. Raises for a missing image."""
        context.images.get_dto(self.image.image_name)
        return ControlOutput(
            control=ControlField(
                image=self.image,
                control_model=self.control_model,
                control_weight=self.control_weight,
                begin_step_percent=self.begin_step_percent,
                end_step_percent=self.end_step_percent,
                control_mode=self.control_mode,
                resize_mode=self.resize_mode,
            )
        )


@invocation(
    "t2i_adapter",
    title="T2I-Adapter - SD1.5, SDXL",
    tags=["t2i_adapter", "control"],
    category="conditioning",
    version="1.0.4",
)
class T2IAdapterInvocation(ControlChecks, BaseInvocation):
    """Combine a T2I-Adapter with its image for the denoise node."""

    image: ImageField = InputField(description="The control image")
    t2i_adapter_model: ModelIdentifierField = InputField(
        description="The T2I-Adapter, for the base of the main model",
        title="T2I-Adapter Model",
        ui_model_base=[BaseModelType.StableDiffusion1, BaseModelType.StableDiffusionXL],
        ui_model_type=ModelType.T2IAdapter,
        ui_order=-1,
    )
    weight: float | list[float] = InputField(default=1, description="Weight from 0 to 2, or one weight per step")
    begin_step_percent: float = InputField(default=0, ge=0, le=1, description=_BEGIN)
    end_step_percent: float = InputField(default=1, ge=0, le=1, description=_END)
    resize_mode: CONTROLNET_RESIZE_VALUES = InputField(default="just_resize", description=_RESIZE)

    @field_validator("weight")
    @classmethod
    def _not_negative(cls, value: float | list[float]) -> float | list[float]:
        if min(value if isinstance(value, list) else [value], default=0) < 0:
            message = "the weight of a T2I-Adapter must be at least 0"
            raise ValueError(message)
        return value

    def invoke(self, context: InvocationContext) -> T2IAdapterOutput:
        """Return the combination. Raises for a missing image."""
        context.images.get_dto(self.image.image_name)
        return T2IAdapterOutput(
            t2i_adapter=T2IAdapterField(
                image=self.image,
                t2i_adapter_model=self.t2i_adapter_model,
                weight=self.weight,
                begin_step_percent=self.begin_step_percent,
                end_step_percent=self.end_step_percent,
                resize_mode=self.resize_mode,
            )
        )


def controlnets(
    context: InvocationContext,
    stack: ExitStack,
    fields: ControlField | Sequence[ControlField] | None,
    base: BaseModelType,
    unet: Any,
) -> "list[ControlNet]":
    """Return the ControlNets of a run with a UNet of a main model of `base`; `stack` holds them on the device.

    Raises ValueError for ControlNets of another base or size, and the context's errors for missing images and
    models.
    """
    from invokeclone.families.stable_diffusion.control_image import ControlImage
    from invokeclone.families.stable_diffusion.controlnet import ControlNet

    controls = []
    for field in [fields] if isinstance(fields, ControlField) else fields or []:
        image = ControlImage(context.images.get_pil(field.image.image_name), field.resize_mode)
        net = _enter_model(context, stack, field.control_model, base, ModelType.ControlNet)
        _check_fits(field.control_model.name, net.config, unet.config)
        controls.append(
            ControlNet(
                net,
                image,
                field.control_weight,
                field.begin_step_percent,
                field.end_step_percent,
                field.control_mode,
            )
        )
    return controls


def t2i_adapters(
    context: InvocationContext,
    stack: ExitStack,
    fields: T2IAdapterField | Sequence[T2IAdapterField] | None,
    base: BaseModelType,
) -> "list[T2IAdapter]":
    """Return the T2I-Adapters of a run with a main model of `base`; `stack` holds them on the device.

    Raises ValueError for adapters of another base, and the context's errors for missing images and models.
    """
    from invokeclone.families.stable_diffusion.control_image import ControlImage
    from invokeclone.families.stable_diffusion.t2i_adapter import T2IAdapter

    controls = []
    for field in [fields] if isinstance(fields, T2IAdapterField) else fields or []:
        image = convert(context.images.get_pil(field.image.image_name), "RGB")
        controls.append(
            T2IAdapter(
                _enter_model(context, stack, field.t2i_adapter_model, base, ModelType.T2IAdapter),
                base,
                ControlImage(image, field.resize_mode),
                field.weight,
                field.begin_step_percent,
                field.end_step_percent,
            )
        )
    return controls


def _enter_model(
    context: InvocationContext, stack: ExitStack, model: ModelIdentifierField, base: BaseModelType, expected: ModelType
) -> Any:
    """Return a model on the device, held by `stack`. Raises ValueError for another type or base."""
    check_type(context, model, expected)
    config = context.models.get_config(model.key)
    if config.base != base:
        kind = _NAMES[expected]
        message = (
            f"The {kind} {config.name} is for {config.base}, but the main model is {base}: "
            f"select a {kind} for {base}, or a main model of {config.base}"
        )
        raise ValueError(message)
    return stack.enter_context(context.models.load(model))


def _check_fits(name: str, control_config: Any, unet: Any) -> None:
    """Raise ValueError for a ControlNet whose residuals do not match the sizes of the UNet's feature maps."""
    for size in ("block_out_channels", "layers_per_block", "cross_attention_dim"):
        control_value, unet_value = (getattr(config, size, None) for config in (control_config, unet))
        if _plain(control_value) != _plain(unet_value):
            message = (
                f"The ControlNet {name} was made for another UNet ({size}: {control_value}, the main model has {unet_value}): "
                "select a ControlNet that was made for this main model"
            )
            raise ValueError(message)


def _plain(value: Any) -> Any:
    """Return lists of a configuration as tuples, because the type depends on where it was read."""
    return tuple(value) if isinstance(value, list) else value
