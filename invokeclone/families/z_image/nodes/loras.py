"""Nodes that add LoRAs to the fields of Z-Image models. They load no model."""

from pydantic import BaseModel

from invokeclone.components.denoisers.fields import TransformerField
from invokeclone.components.denoisers.lora_nodes import ApplyLoRA, ApplyLoRAs, lora_input, lora_list_input, part_input
from invokeclone.components.text_encoders.fields import Qwen3EncoderField
from invokeclone.families.z_image.fields import ZImageLoRALoaderOutput
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import invocation
from invokeclone.graph.vocabulary.fields import FieldDescriptions
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType


class _Parts(BaseModel):
    transformer: TransformerField | None = part_input(FieldDescriptions.transformer, "Transformer")
    qwen3_encoder: Qwen3EncoderField | None = part_input(FieldDescriptions.qwen3_encoder, "Qwen3 Encoder")


@invocation(
    "z_image_lora_loader",
    title="Apply LoRA - Z-Image",
    tags=["lora", "model", "z-image"],
    category="model",
    version="1.0.0",
)
class ZImageLoRALoaderInvocation(_Parts, ApplyLoRA):
    """Apply a LoRA to a Z-Image transformer and its text encoder."""

    lora: ModelIdentifierField = lora_input(BaseModelType.ZImage)
    transformer: TransformerField | None = part_input(FieldDescriptions.transformer, "Z-Image Transformer")

    def invoke(self, context: InvocationContext) -> ZImageLoRALoaderOutput:
        """Add the LoRA to both."""
        return self.add_lora(context, ZImageLoRALoaderOutput)


@invocation(
    "z_image_lora_collection_loader",
    title="Apply LoRA Collection - Z-Image",
    tags=["lora", "model", "z-image"],
    category="model",
    version="1.0.1",
)
class ZImageLoRACollectionLoader(_Parts, ApplyLoRAs):
    """Apply several LoRAs to a Z-Image transformer and its text encoder."""

    loras: LoRAField | list[LoRAField] | None = lora_list_input(BaseModelType.ZImage)

    def invoke(self, context: InvocationContext) -> ZImageLoRALoaderOutput:
        """Add the LoRAs to both."""
        return self.add_loras(context, ZImageLoRALoaderOutput)
