"""Outputs that carry model parts from loaders to whatever puts something on them or runs them."""

from invokeclone.graph.descriptions import FieldDescriptions
from invokeclone.graph.fields import OutputField
from invokeclone.graph.invocation import BaseInvocationOutput, invocation_output
from invokeclone.graph.model_fields import CLIPField, LoRAField, ModelIdentifierField, UNetField, VAEField


@invocation_output("unet_output")
class UNetOutput(BaseInvocationOutput):
    """A UNet."""

    unet: UNetField = OutputField(description=FieldDescriptions.unet, title="UNet")


@invocation_output("clip_output")
class CLIPOutput(BaseInvocationOutput):
    """A CLIP text encoder."""

    clip: CLIPField = OutputField(description=FieldDescriptions.clip, title="CLIP")


@invocation_output("vae_output")
class VAEOutput(BaseInvocationOutput):
    """A VAE."""

    vae: VAEField = OutputField(description=FieldDescriptions.vae, title="VAE")


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
    """Model parts with LoRAs on them."""

    unet: UNetField | None = OutputField(default=None, description=FieldDescriptions.unet, title="UNet")
    clip: CLIPField | None = OutputField(default=None, description=FieldDescriptions.clip, title="CLIP")


@invocation_output("sdxl_lora_loader_output")
class SDXLLoRALoaderOutput(BaseInvocationOutput):
    """SDXL model parts with LoRAs on them."""

    unet: UNetField | None = OutputField(default=None, description=FieldDescriptions.unet, title="UNet")
    clip: CLIPField | None = OutputField(default=None, description=FieldDescriptions.clip, title="CLIP 1")
    clip2: CLIPField | None = OutputField(default=None, description=FieldDescriptions.clip, title="CLIP 2")


@invocation_output("lora_selector_output")
class LoRASelectorOutput(BaseInvocationOutput):
    """A LoRA and its weight."""

    lora: LoRAField = OutputField(description="The LoRA and its weight", title="LoRA")


@invocation_output("clip_skip_output")
class CLIPSkipInvocationOutput(BaseInvocationOutput):
    """A CLIP text encoder that skips layers."""

    clip: CLIPField | None = OutputField(default=None, description=FieldDescriptions.clip, title="CLIP")


@invocation_output("seamless_output")
class SeamlessModeOutput(BaseInvocationOutput):
    """Model parts that wrap around."""

    unet: UNetField | None = OutputField(default=None, description=FieldDescriptions.unet, title="UNet")
    vae: VAEField | None = OutputField(default=None, description=FieldDescriptions.vae, title="VAE")


@invocation_output("model_identifier_output")
class ModelIdentifierOutput(BaseInvocationOutput):
    """A model."""

    model: ModelIdentifierField = OutputField(description="The model", title="Model")
