"""Nodes that add LoRAs to the fields of FLUX.2 models. They load no model."""

from pydantic import BaseModel

from invokeclone.components.denoisers.fields import TransformerField
from invokeclone.components.denoisers.lora_nodes import ApplyLoRA, ApplyLoRAs, lora_input, lora_list_input, part_input
from invokeclone.components.text_encoders.fields import MistralEncoderField, Qwen3EncoderField
from invokeclone.families.flux2.fields import Flux2DevLoRALoaderOutput, Flux2KleinLoRALoaderOutput
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import Classification, invocation
from invokeclone.graph.vocabulary.fields import FieldDescriptions, InputField
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType

_TAGS = ["lora", "model", "flux", "klein", "flux2"]
_DEV_TAGS = ["lora", "model", "flux", "flux2", "dev"]


class _KleinParts(BaseModel):
    transformer: TransformerField | None = part_input(FieldDescriptions.transformer, "Transformer")
    qwen3_encoder: Qwen3EncoderField | None = part_input(FieldDescriptions.qwen3_encoder, "Qwen3 Encoder")


class _DevParts(BaseModel):
    transformer: TransformerField | None = part_input(FieldDescriptions.transformer, "Transformer")
    mistral_encoder: MistralEncoderField | None = part_input(FieldDescriptions.mistral_encoder, "Mistral Encoder")


@invocation(
    "flux2_klein_lora_loader",
    title="Apply LoRA - Flux2 Klein",
    tags=_TAGS,
    category="model",
    version="1.0.0",
    classification=Classification.Prototype,
)
class Flux2KleinLoRALoaderInvocation(_KleinParts, ApplyLoRA):
    """Apply a LoRA to a FLUX.2 transformer and its text encoder."""

    lora: ModelIdentifierField = lora_input(BaseModelType.Flux2)

    def invoke(self, context: InvocationContext) -> Flux2KleinLoRALoaderOutput:
        """Add the LoRA to both."""
        return self.add_lora(context, Flux2KleinLoRALoaderOutput)


@invocation(
    "flux2_klein_lora_collection_loader",
    title="Apply LoRA Collection - Flux2 Klein",
    tags=_TAGS,
    category="model",
    version="1.0.1",
    classification=Classification.Prototype,
)
class Flux2KleinLoRACollectionLoader(_KleinParts, ApplyLoRAs):
    """Apply several LoRAs to a FLUX.2 transformer and its text encoder."""

    loras: LoRAField | list[LoRAField] | None = lora_list_input(BaseModelType.Flux2)

    def invoke(self, context: InvocationContext) -> Flux2KleinLoRALoaderOutput:
        """Add the LoRAs to both."""
        return self.add_loras(context, Flux2KleinLoRALoaderOutput)


@invocation(
    "flux2_dev_lora_loader",
    title="Apply LoRA - FLUX.2 [dev]",
    tags=_DEV_TAGS,
    category="model",
    version="1.0.0",
    classification=Classification.Prototype,
)
class Flux2DevLoRALoaderInvocation(_DevParts, ApplyLoRA):
    """Apply a LoRA to a FLUX.2 dev transformer and its text encoder."""

    lora: ModelIdentifierField = lora_input(BaseModelType.Flux2)

    def invoke(self, context: InvocationContext) -> Flux2DevLoRALoaderOutput:
        """Add the LoRA to both."""
        return self.add_lora(context, Flux2DevLoRALoaderOutput)


@invocation(
    "flux2_dev_lora_collection_loader",
    title="Apply LoRA Collection - FLUX.2 [dev]",
    tags=_DEV_TAGS,
    category="model",
    version="1.0.0",
    classification=Classification.Prototype,
)
class Flux2DevLoRACollectionLoader(_DevParts, ApplyLoRAs):
    """Apply several LoRAs to a FLUX.2 dev transformer and its text encoder."""

    loras: LoRAField | list[LoRAField] | None = InputField(
        default=None, description=FieldDescriptions.lora_collection, title="LoRAs"
    )

    def invoke(self, context: InvocationContext) -> Flux2DevLoRALoaderOutput:
        """Add the LoRAs to both."""
        return self.add_loras(context, Flux2DevLoRALoaderOutput)
