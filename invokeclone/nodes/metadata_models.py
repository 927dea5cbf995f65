"""Models and what is put on them, out of metadata: loaded again as the image was made."""

from typing import Any, Literal

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.descriptions import FieldDescriptions
from invokeclone.graph.fields import Input, InputField, MetadataField, OutputField, WithMetadata
from invokeclone.graph.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.graph.model_fields import CLIPField, LoRAField, ModelIdentifierField, UNetField, VAEField
from invokeclone.graph.model_outputs import LoRALoaderOutput, SDXLLoRALoaderOutput, VAEOutput
from invokeclone.graph.taxonomy import Classification, SubModelType
from invokeclone.nodes.metadata_values import find


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


@invocation_output("metadata_to_lora_collection_output")
class MetadataToLorasCollectionOutput(BaseInvocationOutput):
    """LoRAs and their weights."""

    lora: list[LoRAField] = OutputField(description="The LoRAs and their weights", title="LoRAs")


def part(model: ModelIdentifierField, submodel_type: SubModelType) -> ModelIdentifierField:
    """Return a part of a model."""
    return model.model_copy(update={"submodel_type": submodel_type})


def clip_of(model: ModelIdentifierField, tokenizer: SubModelType, text_encoder: SubModelType) -> CLIPField:
    """Return a text encoder of a model, with nothing put on it."""
    return CLIPField(
        tokenizer=part(model, tokenizer), text_encoder=part(model, text_encoder), skipped_layers=0, loras=[]
    )


def unet_of(model: ModelIdentifierField) -> UNetField:
    """Return the UNet of a model, with nothing put on it."""
    return UNetField(unet=part(model, SubModelType.UNet), scheduler=part(model, SubModelType.Scheduler), loras=[])


def known_model(context: InvocationContext, value: Any) -> ModelIdentifierField:
    """Return the model metadata speaks of; ValueError when it is not installed here."""
    model = ModelIdentifierField.model_validate(value.model_dump() if hasattr(value, "model_dump") else value)
    if not context.models.exists(model.key):
        message = f"Unknown model: {model.name} ({model.key})"
        raise ValueError(message)
    return model


def recorded_loras(context: InvocationContext, metadata: MetadataField | None, label: str = "loras") -> list[LoRAField]:
    """Return the LoRAs metadata speaks of, but for those that are not installed here."""
    found = []
    for record in (metadata.root if metadata else {}).get(label) or []:
        lora = ModelIdentifierField.model_validate(record.get("model") or record.get("lora"))
        if context.models.exists(lora.key):
            found.append(LoRAField(lora=lora, weight=record["weight"]))
        else:
            context.logger.warning(f"LoRA {lora.name} is not installed and is left out")
    return found


def put_on(loras: list[LoRAField], part_field: UNetField | CLIPField | None) -> None:
    """Add LoRAs to a model part, but for those that it has."""
    if part_field is None:
        return
    present = {one.lora.key for one in part_field.loras}
    part_field.loras.extend(one.model_copy() for one in loras if one.lora.key not in present)


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
    custom_label: str | None = InputField(
        default=None, description="The label, when it is a custom one", input=Input.Direct
    )
    default_value: ModelIdentifierField = InputField(
        description="The model when there is none of that label", ui_model_type=["main"]
    )

    def invoke(self, context: InvocationContext) -> MetadataToModelOutput:
        """Give out the model and its parts."""
        model = known_model(context, find(self.metadata, self.label, self.custom_label, self.default_value))
        return MetadataToModelOutput(
            model=model,
            name=model.name,
            unet=unet_of(model),
            vae=VAEField(vae=part(model, SubModelType.VAE)),
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
    custom_label: str | None = InputField(
        default=None, description="The label, when it is a custom one", input=Input.Direct
    )
    default_value: ModelIdentifierField = InputField(
        description="The model when there is none of that label", ui_model_base=["sdxl"], ui_model_type=["main"]
    )

    def invoke(self, context: InvocationContext) -> MetadataToSDXLModelOutput:
        """Give out the model and its parts."""
        model = known_model(context, find(self.metadata, self.label, self.custom_label, self.default_value))
        return MetadataToSDXLModelOutput(
            model=model,
            name=model.name,
            unet=unet_of(model),
            clip=clip_of(model, SubModelType.Tokenizer, SubModelType.TextEncoder),
            clip2=clip_of(model, SubModelType.Tokenizer2, SubModelType.TextEncoder2),
            vae=VAEField(vae=part(model, SubModelType.VAE)),
        )


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
    custom_label: str | None = InputField(
        default=None, description="The label, when it is a custom one", input=Input.Direct
    )
    default_value: VAEField = InputField(description="The VAE when there is none of that label")

    def invoke(self, context: InvocationContext) -> VAEOutput:
        """Give out the VAE."""
        found = find(self.metadata, self.label, self.custom_label, self.default_value)
        if isinstance(found, VAEField):
            return VAEOutput(vae=found)
        return VAEOutput(vae=VAEField(vae=known_model(context, found.get("vae", found))))


@invocation(
    "metadata_to_loras",
    title="Metadata To LoRAs",
    tags=["metadata"],
    category="metadata",
    version="1.1.1",
    classification=Classification.Beta,
)
class MetadataToLorasInvocation(BaseInvocation, WithMetadata):
    """Put the LoRAs from metadata on a UNet and a text encoder."""

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
        """Give out both with the LoRAs; one that is there already is not put on twice."""
        loras = recorded_loras(context, self.metadata)
        put_on(loras, self.unet)
        put_on(loras, self.clip)
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
    """Put the LoRAs from metadata on an SDXL UNet and its text encoders."""

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
        """Give out all with the LoRAs; one that is there already is not put on twice."""
        loras = recorded_loras(context, self.metadata)
        put_on(loras, self.unet)
        put_on(loras, self.clip)
        put_on(loras, self.clip2)
        return SDXLLoRALoaderOutput(unet=self.unet, clip=self.clip, clip2=self.clip2)


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
        """Give out all LoRAs, each once."""
        given = self.loras if isinstance(self.loras, list) else [self.loras] if self.loras else []
        found = recorded_loras(context, self.metadata, self.custom_label)
        by_key: dict[str, LoRAField] = {}
        for one in [*given, *found]:
            by_key.setdefault(one.lora.key, one)
        return MetadataToLorasCollectionOutput(lora=list(by_key.values()))
