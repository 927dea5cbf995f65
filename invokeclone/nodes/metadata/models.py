"""Nodes that read VAEs and LoRAs from metadata, for all families."""

from typing import Literal

from invokeclone.components.autoencoders.fields import VAEField, VAEOutput
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.graph.invocations.metadata import get_metadata_loras, get_metadata_model, get_metadata_value
from invokeclone.graph.vocabulary.fields import Input, InputField, OutputField, WithMetadata
from invokeclone.graph.vocabulary.model_fields import LoRAField
from invokeclone.graph.vocabulary.taxonomy import Classification


@invocation_output("metadata_to_lora_collection_output")
class MetadataToLorasCollectionOutput(BaseInvocationOutput):
    """LoRAs and their weights."""

    lora: list[LoRAField] = OutputField(description="The LoRAs and their weights", title="LoRAs")


@invocation(
    "metadata_to_vae",
    title="Metadata To VAE",
    tags=["metadata"],
    category="metadata",
    version="1.2.1",
    classification=Classification.Beta,
)
class MetadataToVAEInvocation(BaseInvocation, WithMetadata):
    """Read the VAE from metadata."""

    label: Literal["* CUSTOM LABEL *", "vae"] = InputField(
        default="vae", description="The label to look for", input=Input.Direct
    )
    custom_label: str | None = InputField(default=None, description="The label, if custom", input=Input.Direct)
    default_value: VAEField = InputField(description="The VAE to use if the label is missing")

    def invoke(self, context: InvocationContext) -> VAEOutput:
        """Return the VAE."""
        value = get_metadata_value(self.metadata, self.label, self.custom_label, self.default_value)
        if isinstance(value, VAEField):
            return VAEOutput(vae=value)
        return VAEOutput(vae=VAEField(vae=get_metadata_model(context, value.get("vae", value))))


@invocation(
    "metadata_to_lora_collection",
    title="Metadata To LoRA Collection",
    tags=["metadata"],
    category="metadata",
    version="1.1.0",
    classification=Classification.Beta,
)
class MetadataToLorasCollectionInvocation(BaseInvocation, WithMetadata):
    """Read the LoRAs from metadata."""

    custom_label: str = InputField(default="loras", description="The label to look for", input=Input.Direct)
    loras: LoRAField | list[LoRAField] | None = InputField(
        default=[], description="LoRAs to add to those found", title="LoRAs"
    )

    def invoke(self, context: InvocationContext) -> MetadataToLorasCollectionOutput:
        """Return all LoRAs without duplicates."""
        inputs = self.loras if isinstance(self.loras, list) else [self.loras] if self.loras else []
        recorded = get_metadata_loras(context, self.metadata, self.custom_label)
        by_key: dict[str, LoRAField] = {}
        for lora in [*inputs, *recorded]:
            by_key.setdefault(lora.lora.key, lora)
        return MetadataToLorasCollectionOutput(lora=list(by_key.values()))
