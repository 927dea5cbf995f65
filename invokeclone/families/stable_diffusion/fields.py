"""Field and output types of Stable Diffusion models and their parts."""

from pydantic import BaseModel, Field

from invokeclone.components.autoencoders.fields import VAEField, VAEOutput
from invokeclone.components.clip.fields import CLIPField, CLIPOutput
from invokeclone.graph.invocations.invocation import BaseInvocationOutput, invocation_output
from invokeclone.graph.vocabulary.descriptions import FieldDescriptions
from invokeclone.graph.vocabulary.fields import OutputField
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import SubModelType


class FreeUConfig(BaseModel):
    """FreeU's four factors."""

    s1: float = Field(ge=-1, le=3, description=FieldDescriptions.freeu_s1)
    s2: float = Field(ge=-1, le=3, description=FieldDescriptions.freeu_s2)
    b1: float = Field(ge=-1, le=3, description=FieldDescriptions.freeu_b1)
    b2: float = Field(ge=-1, le=3, description=FieldDescriptions.freeu_b2)


class UNetField(BaseModel):
    """A UNet with its scheduler, LoRAs, seamless axes and FreeU."""

    unet: ModelIdentifierField = Field(description="The UNet")
    scheduler: ModelIdentifierField = Field(description="The scheduler")
    loras: list[LoRAField] = Field(description="LoRAs to apply")
    seamless_axes: list[str] = Field(
        default_factory=list, description='Axes along which images tile seamlessly ("x", "y")'
    )
    freeu_config: FreeUConfig | None = Field(default=None, description="FreeU, if any")


def clip_of(model: ModelIdentifierField, tokenizer: SubModelType, text_encoder: SubModelType) -> CLIPField:
    """Return a text encoder of a model, without skipped layers and LoRAs."""
    return CLIPField(tokenizer=model.part(tokenizer), text_encoder=model.part(text_encoder), skipped_layers=0, loras=[])


def unet_of(model: ModelIdentifierField) -> UNetField:
    """Return the UNet of a model, without modifications."""
    return UNetField(unet=model.part(SubModelType.UNet), scheduler=model.part(SubModelType.Scheduler), loras=[])


@invocation_output("unet_output")
class UNetOutput(BaseInvocationOutput):
    """A UNet."""

    unet: UNetField = OutputField(description=FieldDescriptions.unet, title="UNet")


@invocation_output("model_loader_output")
class ModelLoaderOutput(UNetOutput, CLIPOutput, VAEOutput):
    """The parts of an SD1 or SD2 model."""


@invocation_output("sdxl_model_loader_output")
class SDXLModelLoaderOutput(BaseInvocationOutput):
    """The parts of an SDXL model."""

    unet: UNetField = OutputField(description=FieldDescriptions.unet, title="UNet")
    clip: CLIPField = OutputField(description=FieldDescriptions.clip, title="CLIP 1")
    clip2: CLIPField = OutputField(description=FieldDescriptions.clip, title="CLIP 2")
    vae: VAEField = OutputField(description=FieldDescriptions.vae, title="VAE")


@invocation_output("sdxl_refiner_model_loader_output")
class SDXLRefinerModelLoaderOutput(BaseInvocationOutput):
    """The parts of an SDXL refiner."""

    unet: UNetField = OutputField(description=FieldDescriptions.unet, title="UNet")
    clip2: CLIPField = OutputField(description=FieldDescriptions.clip, title="CLIP 2")
    vae: VAEField = OutputField(description=FieldDescriptions.vae, title="VAE")


@invocation_output("lora_loader_output")
class LoRALoaderOutput(BaseInvocationOutput):
    """Model parts with LoRAs applied."""

    unet: UNetField | None = OutputField(default=None, description=FieldDescriptions.unet, title="UNet")
    clip: CLIPField | None = OutputField(default=None, description=FieldDescriptions.clip, title="CLIP")


@invocation_output("sdxl_lora_loader_output")
class SDXLLoRALoaderOutput(BaseInvocationOutput):
    """SDXL model parts with LoRAs applied."""

    unet: UNetField | None = OutputField(default=None, description=FieldDescriptions.unet, title="UNet")
    clip: CLIPField | None = OutputField(default=None, description=FieldDescriptions.clip, title="CLIP 1")
    clip2: CLIPField | None = OutputField(default=None, description=FieldDescriptions.clip, title="CLIP 2")


@invocation_output("clip_skip_output")
class CLIPSkipInvocationOutput(BaseInvocationOutput):
    """A CLIP text encoder with skipped layers."""

    clip: CLIPField | None = OutputField(default=None, description=FieldDescriptions.clip, title="CLIP")


@invocation_output("seamless_output")
class SeamlessModeOutput(BaseInvocationOutput):
    """Model parts with seamless axes."""

    unet: UNetField | None = OutputField(default=None, description=FieldDescriptions.unet, title="UNet")
    vae: VAEField | None = OutputField(default=None, description=FieldDescriptions.vae, title="VAE")
