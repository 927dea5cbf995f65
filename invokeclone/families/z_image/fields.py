"""Field and output types of Z-Image's conditioning, controls and models."""

from pydantic import BaseModel, Field

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.denoisers.fields import TransformerField
from invokeclone.components.text_encoders.fields import Qwen3EncoderField
from invokeclone.graph.invocations.invocation import BaseInvocationOutput, invocation_output
from invokeclone.graph.vocabulary.descriptions import FieldDescriptions
from invokeclone.graph.vocabulary.fields import OutputField, TensorField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField


class ZImageConditioningField(BaseModel):
    """A reference to a stored Z-Image conditioning."""

    conditioning_name: str = Field(description="Name of the conditioning")
    mask: TensorField | None = Field(
        default=None, description="Mask of the region that the prompt applies to; None means the whole image"
    )


class ZImageControlField(BaseModel):
    """A ControlNet of Z-Image with its image."""

    image_name: str = Field(description="Name of the control image")
    control_model: ModelIdentifierField = Field(description="The ControlNet")
    control_context_scale: float = Field(default=0.75, ge=0.0, le=2.0, description="Strength of the ControlNet")
    begin_step_percent: float = Field(default=0.0, ge=0.0, le=1.0, description="When the ControlNet begins to act")
    end_step_percent: float = Field(default=1.0, ge=0.0, le=1.0, description="When the ControlNet stops acting")


@invocation_output("z_image_model_loader_output")
class ZImageModelLoaderOutput(BaseInvocationOutput):
    """The parts of a Z-Image model."""

    transformer: TransformerField = OutputField(description=FieldDescriptions.transformer, title="Transformer")
    qwen3_encoder: Qwen3EncoderField = OutputField(description=FieldDescriptions.qwen3_encoder, title="Qwen3 Encoder")
    vae: VAEField = OutputField(description=FieldDescriptions.vae, title="VAE")


@invocation_output("z_image_conditioning_output")
class ZImageConditioningOutput(BaseInvocationOutput):
    """A Z-Image conditioning."""

    conditioning: ZImageConditioningField = OutputField(description=FieldDescriptions.cond)


@invocation_output("z_image_control_output")
class ZImageControlOutput(BaseInvocationOutput):
    """A ControlNet of Z-Image with its image."""

    control: ZImageControlField = OutputField(description="The ControlNet")


@invocation_output("z_image_lora_loader_output")
class ZImageLoRALoaderOutput(BaseInvocationOutput):
    """A transformer and a text encoder with LoRAs."""

    transformer: TransformerField | None = OutputField(
        default=None, description=FieldDescriptions.transformer, title="Z-Image Transformer"
    )
    qwen3_encoder: Qwen3EncoderField | None = OutputField(
        default=None, description=FieldDescriptions.qwen3_encoder, title="Qwen3 Encoder"
    )
