"""Nodes that add LoRAs to the fields of Stable Diffusion models. They load no model."""

from collections.abc import Sequence
from typing import TypeVar

from invokeclone.components.clip.fields import CLIPField
from invokeclone.families.stable_diffusion.fields import LoRALoaderOutput, SDXLLoRALoaderOutput, UNetField
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.metadata import check_exists, check_type
from invokeclone.graph.vocabulary.fields import FieldDescriptions, Input, InputField
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType

_UNET, _CLIP = FieldDescriptions.unet, FieldDescriptions.clip

Target = TypeVar("Target", UNetField, CLIPField)


class LoRANotApplicable(ValueError):
    """A LoRA cannot be applied to a model: it is already applied, or for another base."""


@invocation("lora_loader", title="Apply LoRA - SD1.5", tags=["model"], category="model", version="1.0.4")
class LoRALoaderInvocation(BaseInvocation):
    """Apply a LoRA to a UNet and a text encoder."""

    lora: ModelIdentifierField = InputField(
        description=FieldDescriptions.lora_model,
        title="LoRA",
        ui_model_base=BaseModelType.StableDiffusion1,
        ui_model_type=ModelType.LoRA,
    )
    weight: float = InputField(default=0.75, description=FieldDescriptions.lora_weight)
    unet: UNetField | None = InputField(default=None, description=_UNET, input=Input.Connection, title="UNet")
    clip: CLIPField | None = InputField(default=None, description=_CLIP, input=Input.Connection, title="CLIP")

    def invoke(self, context: InvocationContext) -> LoRALoaderOutput:
        """Add the LoRA to both."""
        loras = [LoRAField(lora=self.lora, weight=self.weight)]
        unet, clip = with_loras(context, self.unet, loras), with_loras(context, self.clip, loras)
        return LoRALoaderOutput(unet=unet, clip=clip)


@invocation(
    "lora_collection_loader", title="Apply LoRA Collection - SD1.5", tags=["model"], category="model", version="1.1.3"
)
class LoRACollectionLoader(BaseInvocation):
    """Apply several LoRAs to a UNet and a text encoder."""

    loras: LoRAField | list[LoRAField] | None = InputField(
        default=None,
        description=FieldDescriptions.lora_collection,
        title="LoRAs",
        ui_model_base=[BaseModelType.StableDiffusion1, BaseModelType.StableDiffusion2],
        ui_model_type=ModelType.LoRA,
    )
    unet: UNetField | None = InputField(default=None, description=_UNET, input=Input.Connection, title="UNet")
    clip: CLIPField | None = InputField(default=None, description=_CLIP, input=Input.Connection, title="CLIP")

    def invoke(self, context: InvocationContext) -> LoRALoaderOutput:
        """Add the LoRAs to both."""
        loras = _as_list(self.loras)
        unet, clip = with_loras(context, self.unet, loras), with_loras(context, self.clip, loras)
        return LoRALoaderOutput(unet=unet, clip=clip)


@invocation("sdxl_lora_loader", title="Apply LoRA - SDXL", tags=["lora", "model"], category="model", version="1.0.5")
class SDXLLoRALoaderInvocation(BaseInvocation):
    """Apply a LoRA to an SDXL UNet and its text encoders."""

    lora: ModelIdentifierField = InputField(
        description=FieldDescriptions.lora_model,
        title="LoRA",
        ui_model_base=BaseModelType.StableDiffusionXL,
        ui_model_type=ModelType.LoRA,
    )
    weight: float = InputField(default=0.75, description=FieldDescriptions.lora_weight)
    unet: UNetField | None = InputField(default=None, description=_UNET, input=Input.Connection, title="UNet")
    clip: CLIPField | None = InputField(default=None, description=_CLIP, input=Input.Connection, title="CLIP 1")
    clip2: CLIPField | None = InputField(default=None, description=_CLIP, input=Input.Connection, title="CLIP 2")

    def invoke(self, context: InvocationContext) -> SDXLLoRALoaderOutput:
        """Add the LoRA to all three."""
        loras = [LoRAField(lora=self.lora, weight=self.weight)]
        return SDXLLoRALoaderOutput(
            unet=with_loras(context, self.unet, loras),
            clip=with_loras(context, self.clip, loras),
            clip2=with_loras(context, self.clip2, loras),
        )


@invocation(
    "sdxl_lora_collection_loader",
    title="Apply LoRA Collection - SDXL",
    tags=["model"],
    category="model",
    version="1.1.3",
)
class SDXLLoRACollectionLoader(BaseInvocation):
    """Apply several LoRAs to an SDXL UNet and its text encoders."""

    loras: LoRAField | list[LoRAField] | None = InputField(
        default=None,
        description=FieldDescriptions.lora_collection,
        title="LoRAs",
        ui_model_base=BaseModelType.StableDiffusionXL,
        ui_model_type=ModelType.LoRA,
    )
    unet: UNetField | None = InputField(default=None, description=_UNET, input=Input.Connection, title="UNet")
    clip: CLIPField | None = InputField(default=None, description=_CLIP, input=Input.Connection, title="CLIP")
    clip2: CLIPField | None = InputField(default=None, description=_CLIP, input=Input.Connection, title="CLIP 2")

    def invoke(self, context: InvocationContext) -> SDXLLoRALoaderOutput:
        """Add the LoRAs to all three."""
        loras = _as_list(self.loras)
        return SDXLLoRALoaderOutput(
            unet=with_loras(context, self.unet, loras),
            clip=with_loras(context, self.clip, loras),
            clip2=with_loras(context, self.clip2, loras),
        )


def _as_list(loras: LoRAField | list[LoRAField] | None) -> list[LoRAField]:
    if loras is None:
        return []
    return loras if isinstance(loras, list) else [loras]


def with_loras(context: InvocationContext, target: Target | None, loras: Sequence[LoRAField]) -> Target | None:
    """Return a model part with the LoRAs added; None stays None.

    Raises UnknownModel for a LoRA that is not installed, WrongModelType for a model that is not a LoRA, and
    LoRANotApplicable for one that is already applied or for another base.
    """
    for field in loras:
        check_exists(context, field.lora)
        check_type(context, field.lora, ModelType.LoRA)
    if target is None:
        return None
    model = target.unet if isinstance(target, UNetField) else target.text_encoder
    applied = list(target.loras)
    for field in loras:
        if any(existing.lora.key == field.lora.key for existing in applied):
            message = f"the LoRA {field.lora.name} is applied twice: remove one of the two from the graph"
            raise LoRANotApplicable(message)
        _check_base(context, field.lora, model)
        applied.append(field)
    return target.model_copy(update={"loras": applied})


def _check_base(context: InvocationContext, lora: ModelIdentifierField, model: ModelIdentifierField) -> None:
    lora_base, model_base = context.models.get_config(lora).base, context.models.get_config(model).base
    if lora_base != model_base:
        message = f"the LoRA {lora.name} is for {lora_base} models, but {model.name} is a {model_base} model: select one of the same base"
        raise LoRANotApplicable(message)
