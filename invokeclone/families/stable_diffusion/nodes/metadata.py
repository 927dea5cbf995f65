"""Nodes that load Stable Diffusion models and LoRAs from the metadata of an image."""

from typing import Literal

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.clip.fields import CLIPField
from invokeclone.families.stable_diffusion.fields import (
    LoRALoaderOutput,
    SDXLLoRALoaderOutput,
    UNetField,
    clip_of,
    unet_of,
)
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.graph.invocations.metadata import get_metadata_loras, get_metadata_model, get_metadata_value
from invokeclone.graph.vocabulary.descriptions import FieldDescriptions
from invokeclone.graph.vocabulary.fields import Input, InputField, OutputField, WithMetadata
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import Classification, SubModelType


@invocation_output("metadata_to_model_output")
class MetadataToModelOutput(BaseInvocationOutput):
    """A main model and its parts."""

    model: ModelIdentifierField = OutputField(description=FieldDescriptions.main_model, title="Model")
    name: str = OutputField(description="The model's name", title="Name")
    unet: UNetField = OutputField(description=FieldDescriptions.unet, title="UNet")
    vae: VAEField = OutputField(description=FieldDescriptions.vae, title="VAE")
    clip: CLIPField = OutputField(description=FieldDescriptions.clip, title="CLIP")


@invocation_output("metadata_to_sdxl_model_output")
class MetadataToSDXLModelOutput(BaseInvocationOutput):
    """An SDXL model and its parts."""

    model: ModelIdentifierField = OutputField(description=FieldDescriptions.main_model, title="Model")
    name: str = OutputField(description="The model's name", title="Name")
    unet: UNetField = OutputField(description=FieldDescriptions.unet, title="UNet")
    clip: CLIPField = OutputField(description=FieldDescriptions.clip, title="CLIP 1")
    clip2: CLIPField = OutputField(description=FieldDescriptions.clip, title="CLIP 2")
    vae: VAEField = OutputField(description=FieldDescriptions.vae, title="VAE")


def add_loras(loras: list[LoRAField], target: UNetField | CLIPField | None) -> None:
    """Add LoRAs to a model part, skipping those that it already has."""
    if target is None:
        return
    present = {lora.lora.key for lora in target.loras}
    target.loras.extend(lora.model_copy() for lora in loras if lora.lora.key not in present)


@invocation(
    "metadata_to_model",
    title="Metadata To Model",
    tags=["metadata"],
    category="metadata",
    version="1.3.0",
    classification=Classification.Beta,
)
class MetadataToModelInvocation(BaseInvocation, WithMetadata):
    """Read the main model from metadata."""

    label: Literal["* CUSTOM LABEL *", "model"] = InputField(
        default="model", description="The label to look for", input=Input.Direct
    )
    custom_label: str | None = InputField(default=None, description="The label, if custom", input=Input.Direct)
    default_value: ModelIdentifierField = InputField(
        description="The model to use if the label is missing", ui_model_type=["main"]
    )

    def invoke(self, context: InvocationContext) -> MetadataToModelOutput:
        """Return the model and its parts."""
        model = get_metadata_model(
            context, get_metadata_value(self.metadata, self.label, self.custom_label, self.default_value)
        )
        return MetadataToModelOutput(
            model=model,
            name=model.name,
            unet=unet_of(model),
            vae=VAEField(vae=model.part(SubModelType.VAE)),
            clip=clip_of(model, SubModelType.Tokenizer, SubModelType.TextEncoder),
        )


@invocation(
    "metadata_to_sdxl_model",
    title="Metadata To SDXL Model",
    tags=["metadata"],
    category="metadata",
    version="1.3.0",
    classification=Classification.Beta,
)
class MetadataToSDXLModelInvocation(BaseInvocation, WithMetadata):
    """Read the SDXL model from metadata."""

    label: Literal["* CUSTOM LABEL *", "model"] = InputField(
        default="model", description="The label to look for", input=Input.Direct
    )
    custom_label: str | None = InputField(default=None, description="The label, if custom", input=Input.Direct)
    default_value: ModelIdentifierField = InputField(
        description="The model to use if the label is missing", ui_model_base=["sdxl"], ui_model_type=["main"]
    )

    def invoke(self, context: InvocationContext) -> MetadataToSDXLModelOutput:
        """Return the model and its parts."""
        model = get_metadata_model(
            context, get_metadata_value(self.metadata, self.label, self.custom_label, self.default_value)
        )
        return MetadataToSDXLModelOutput(
            model=model,
            name=model.name,
            unet=unet_of(model),
            clip=clip_of(model, SubModelType.Tokenizer, SubModelType.TextEncoder),
            clip2=clip_of(model, SubModelType.Tokenizer2, SubModelType.TextEncoder2),
            vae=VAEField(vae=model.part(SubModelType.VAE)),
        )


@invocation(
    "metadata_to_loras",
    title="Metadata To LoRAs",
    tags=["metadata"],
    category="metadata",
    version="1.1.1",
    classification=Classification.Beta,
)
class MetadataToLorasInvocation(BaseInvocation, WithMetadata):
    """Apply the LoRAs from metadata to a UNet and a text encoder."""

    unet: UNetField | None = InputField(
        default=None, description="UNet, scheduler and LoRAs", title="UNet", input=Input.Connection
    )
    clip: CLIPField | None = InputField(
        default=None,
        description="Tokenizer, text encoder, LoRAs and skipped layers",
        title="CLIP",
        input=Input.Connection,
    )

    def invoke(self, context: InvocationContext) -> LoRALoaderOutput:
        """Return both with the LoRAs added; LoRAs already applied are skipped."""
        loras = get_metadata_loras(context, self.metadata)
        add_loras(loras, self.unet)
        add_loras(loras, self.clip)
        return LoRALoaderOutput(unet=self.unet, clip=self.clip)


@invocation(
    "metadata_to_sdlx_loras",
    title="Metadata To SDXL LoRAs",
    tags=["metadata"],
    category="metadata",
    version="1.1.1",
    classification=Classification.Beta,
)
class MetadataToSDXLLorasInvocation(BaseInvocation, WithMetadata):
    """Apply the LoRAs from metadata to an SDXL UNet and its text encoders."""

    unet: UNetField | None = InputField(
        default=None, description="UNet, scheduler and LoRAs", title="UNet", input=Input.Connection
    )
    clip: CLIPField | None = InputField(
        default=None, description="The first text encoder", title="CLIP 1", input=Input.Connection
    )
    clip2: CLIPField | None = InputField(
        default=None, description="The second text encoder", title="CLIP 2", input=Input.Connection
    )

    def invoke(self, context: InvocationContext) -> SDXLLoRALoaderOutput:
        """Return all with the LoRAs added; LoRAs already applied are skipped."""
        loras = get_metadata_loras(context, self.metadata)
        add_loras(loras, self.unet)
        add_loras(loras, self.clip)
        add_loras(loras, self.clip2)
        return SDXLLoRALoaderOutput(unet=self.unet, clip=self.clip, clip2=self.clip2)
