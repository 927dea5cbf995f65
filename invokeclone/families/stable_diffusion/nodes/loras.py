"""Nodes that add LoRAs to the fields of Stable Diffusion models. They load no model."""

from invokeclone.components.clip.fields import CLIPField
from invokeclone.components.denoisers.lora_fields import with_loras
from invokeclone.families.stable_diffusion.fields import LoRALoaderOutput, SDXLLoRALoaderOutput, UNetField
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.inputs import as_list
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.vocabulary.fields import FieldDescriptions, Input, InputField
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType

_UNET, _CLIP = FieldDescriptions.unet, FieldDescriptions.clip


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
        loras = as_list(self.loras)
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
        loras = as_list(self.loras)
        return SDXLLoRALoaderOutput(
            unet=with_loras(context, self.unet, loras),
            clip=with_loras(context, self.clip, loras),
            clip2=with_loras(context, self.clip2, loras),
        )
