"""Nodes that add LoRAs to the fields of FLUX.2 models. They load no model."""

from invokeclone.components.denoisers.fields import TransformerField
from invokeclone.components.denoisers.lora_fields import with_loras
from invokeclone.components.text_encoders.fields import MistralEncoderField, Qwen3EncoderField
from invokeclone.families.flux2.fields import Flux2DevLoRALoaderOutput, Flux2KleinLoRALoaderOutput
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.inputs import as_list
from invokeclone.graph.invocations.invocation import BaseInvocation, Classification, invocation
from invokeclone.graph.vocabulary.fields import FieldDescriptions, Input, InputField
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType

_TAGS = ["lora", "model", "flux", "klein", "flux2"]
_DEV_TAGS = ["lora", "model", "flux", "flux2", "dev"]


@invocation(
    "flux2_klein_lora_loader",
    title="Apply LoRA - Flux2 Klein",
    tags=_TAGS,
    category="model",
    version="1.0.0",
    classification=Classification.Prototype,
)
class Flux2KleinLoRALoaderInvocation(BaseInvocation):
    """Apply a LoRA to a FLUX.2 transformer and its text encoder."""

    lora: ModelIdentifierField = InputField(
        description=FieldDescriptions.lora_model,
        title="LoRA",
        ui_model_base=BaseModelType.Flux2,
        ui_model_type=ModelType.LoRA,
    )
    weight: float = InputField(default=0.75, description=FieldDescriptions.lora_weight)
    transformer: TransformerField | None = InputField(
        default=None, description=FieldDescriptions.transformer, input=Input.Connection, title="Transformer"
    )
    qwen3_encoder: Qwen3EncoderField | None = InputField(
        default=None, description=FieldDescriptions.qwen3_encoder, input=Input.Connection, title="Qwen3 Encoder"
    )

    def invoke(self, context: InvocationContext) -> Flux2KleinLoRALoaderOutput:
        """Add the LoRA to both."""
        loras = [LoRAField(lora=self.lora, weight=self.weight)]
        return Flux2KleinLoRALoaderOutput(
            transformer=with_loras(context, self.transformer, loras),
            qwen3_encoder=with_loras(context, self.qwen3_encoder, loras),
        )


@invocation(
    "flux2_klein_lora_collection_loader",
    title="Apply LoRA Collection - Flux2 Klein",
    tags=_TAGS,
    category="model",
    version="1.0.1",
    classification=Classification.Prototype,
)
class Flux2KleinLoRACollectionLoader(BaseInvocation):
    """Apply several LoRAs to a FLUX.2 transformer and its text encoder."""

    loras: LoRAField | list[LoRAField] | None = InputField(
        default=None,
        description=FieldDescriptions.lora_collection,
        title="LoRAs",
        ui_model_base=BaseModelType.Flux2,
        ui_model_type=ModelType.LoRA,
    )
    transformer: TransformerField | None = InputField(
        default=None, description=FieldDescriptions.transformer, input=Input.Connection, title="Transformer"
    )
    qwen3_encoder: Qwen3EncoderField | None = InputField(
        default=None, description=FieldDescriptions.qwen3_encoder, input=Input.Connection, title="Qwen3 Encoder"
    )

    def invoke(self, context: InvocationContext) -> Flux2KleinLoRALoaderOutput:
        """Add the LoRAs to both."""
        loras = as_list(self.loras)
        return Flux2KleinLoRALoaderOutput(
            transformer=with_loras(context, self.transformer, loras),
            qwen3_encoder=with_loras(context, self.qwen3_encoder, loras),
        )


@invocation(
    "flux2_dev_lora_loader",
    title="Apply LoRA - FLUX.2 [dev]",
    tags=_DEV_TAGS,
    category="model",
    version="1.0.0",
    classification=Classification.Prototype,
)
class Flux2DevLoRALoaderInvocation(BaseInvocation):
    """Apply a LoRA to a FLUX.2 dev transformer and its text encoder."""

    lora: ModelIdentifierField = InputField(
        description=FieldDescriptions.lora_model,
        title="LoRA",
        ui_model_base=BaseModelType.Flux2,
        ui_model_type=ModelType.LoRA,
    )
    weight: float = InputField(default=0.75, description=FieldDescriptions.lora_weight)
    transformer: TransformerField | None = InputField(
        default=None, description=FieldDescriptions.transformer, input=Input.Connection, title="Transformer"
    )
    mistral_encoder: MistralEncoderField | None = InputField(
        default=None, description=FieldDescriptions.mistral_encoder, input=Input.Connection, title="Mistral Encoder"
    )

    def invoke(self, context: InvocationContext) -> Flux2DevLoRALoaderOutput:
        """Add the LoRA to both."""
        loras = [LoRAField(lora=self.lora, weight=self.weight)]
        return Flux2DevLoRALoaderOutput(
            transformer=with_loras(context, self.transformer, loras),
            mistral_encoder=with_loras(context, self.mistral_encoder, loras),
        )


@invocation(
    "flux2_dev_lora_collection_loader",
    title="Apply LoRA Collection - FLUX.2 [dev]",
    tags=_DEV_TAGS,
    category="model",
    version="1.0.0",
    classification=Classification.Prototype,
)
class Flux2DevLoRACollectionLoader(BaseInvocation):
    """Apply several LoRAs to a FLUX.2 dev transformer and its text encoder."""

    loras: LoRAField | list[LoRAField] | None = InputField(
        default=None, description=FieldDescriptions.lora_collection, title="LoRAs"
    )
    transformer: TransformerField | None = InputField(
        default=None, description=FieldDescriptions.transformer, input=Input.Connection, title="Transformer"
    )
    mistral_encoder: MistralEncoderField | None = InputField(
        default=None, description=FieldDescriptions.mistral_encoder, input=Input.Connection, title="Mistral Encoder"
    )

    def invoke(self, context: InvocationContext) -> Flux2DevLoRALoaderOutput:
        """Add the LoRAs to both."""
        loras = as_list(self.loras)
        return Flux2DevLoRALoaderOutput(
            transformer=with_loras(context, self.transformer, loras),
            mistral_encoder=with_loras(context, self.mistral_encoder, loras),
        )
