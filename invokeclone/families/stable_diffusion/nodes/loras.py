"""Nodes that add LoRAs to the fields of Stable Diffusion models. They load no model."""

from pydantic import BaseModel

from invokeclone.components.clip.fields import CLIPField
from invokeclone.components.denoisers.lora_nodes import ApplyLoRA, ApplyLoRAs, lora_input, lora_list_input, part_input
from invokeclone.families.stable_diffusion.fields import LoRALoaderOutput, SDXLLoRALoaderOutput, UNetField
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import invocation
from invokeclone.graph.vocabulary.fields import FieldDescriptions
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType


class _Parts(BaseModel):
    unet: UNetField | None = part_input(FieldDescriptions.unet, "UNet")
    clip: CLIPField | None = part_input(FieldDescriptions.clip, "CLIP")


class _PartsXL(_Parts):
    clip2: CLIPField | None = part_input(FieldDescriptions.clip, "CLIP 2")


@invocation("lora_loader", title="Apply LoRA - SD1.5", tags=["model"], category="model", version="1.0.4")
class LoRALoaderInvocation(_Parts, ApplyLoRA):
    """Apply a LoRA to a UNet and a text encoder."""

    lora: ModelIdentifierField = lora_input(BaseModelType.StableDiffusion1)

    def invoke(self, context: InvocationContext) -> LoRALoaderOutput:
        """Add the LoRA to both."""
        return self.add_lora(context, LoRALoaderOutput)


@invocation(
    "lora_collection_loader", title="Apply LoRA Collection - SD1.5", tags=["model"], category="model", version="1.1.3"
)
class LoRACollectionLoader(_Parts, ApplyLoRAs):
    """Apply several LoRAs to a UNet and a text encoder."""

    loras: LoRAField | list[LoRAField] | None = lora_list_input(
        [BaseModelType.StableDiffusion1, BaseModelType.StableDiffusion2]
    )

    def invoke(self, context: InvocationContext) -> LoRALoaderOutput:
        """Add the LoRAs to both."""
        return self.add_loras(context, LoRALoaderOutput)


@invocation("sdxl_lora_loader", title="Apply LoRA - SDXL", tags=["lora", "model"], category="model", version="1.0.5")
class SDXLLoRALoaderInvocation(_PartsXL, ApplyLoRA):
    """Apply a LoRA to an SDXL UNet and its text encoders."""

    lora: ModelIdentifierField = lora_input(BaseModelType.StableDiffusionXL)
    clip: CLIPField | None = part_input(FieldDescriptions.clip, "CLIP 1")

    def invoke(self, context: InvocationContext) -> SDXLLoRALoaderOutput:
        """Add the LoRA to all three."""
        return self.add_lora(context, SDXLLoRALoaderOutput)


@invocation(
    "sdxl_lora_collection_loader",
    title="Apply LoRA Collection - SDXL",
    tags=["model"],
    category="model",
    version="1.1.3",
)
class SDXLLoRACollectionLoader(_PartsXL, ApplyLoRAs):
    """Apply several LoRAs to an SDXL UNet and its text encoders."""

    loras: LoRAField | list[LoRAField] | None = lora_list_input(BaseModelType.StableDiffusionXL)

    def invoke(self, context: InvocationContext) -> SDXLLoRALoaderOutput:
        """Add the LoRAs to all three."""
        return self.add_loras(context, SDXLLoRALoaderOutput)
