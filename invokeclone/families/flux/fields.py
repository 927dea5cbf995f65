"""Field and output types of FLUX.1 models and their controls."""

from typing import Literal

from pydantic import BaseModel, Field

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.clip.fields import CLIPField
from invokeclone.components.control.fields import CONTROLNET_RESIZE_VALUES
from invokeclone.components.denoisers.fields import TransformerField
from invokeclone.components.flux.fields import FluxKontextConditioningField
from invokeclone.components.text_encoders.fields import T5EncoderField
from invokeclone.graph.invocations.invocation import BaseInvocationOutput, invocation_output
from invokeclone.graph.vocabulary.descriptions import FieldDescriptions
from invokeclone.graph.vocabulary.fields import ImageField, OutputField, TensorField
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField


class FluxReduxConditioningField(BaseModel):
    """Embeddings of an image, which are added to the prompt."""

    conditioning: TensorField = Field(description="The embeddings (1, tokens, width)")
    mask: TensorField | None = Field(
        default=None, description="Boolean mask of the region they apply to; None means the whole image"
    )


class FluxFillConditioningField(BaseModel):
    """An image for FLUX.1 Fill, and the part of it that is painted anew."""

    image: ImageField = Field(description="The image")
    mask: TensorField = Field(description="Boolean mask of the part to paint anew")


class FluxControlNetField(BaseModel):
    """A ControlNet of FLUX.1 with its image."""

    image: ImageField = Field(description="The control image")
    control_model: ModelIdentifierField = Field(description="The ControlNet")
    control_weight: float | list[float] = Field(default=1, description="Weight, or one weight per step")
    begin_step_percent: float = Field(default=0, ge=0, le=1, description=FieldDescriptions.denoising_start)
    end_step_percent: float = Field(default=1, ge=0, le=1, description=FieldDescriptions.denoising_end)
    resize_mode: CONTROLNET_RESIZE_VALUES = Field(default="just_resize", description="How the image is resized")
    instantx_control_mode: int | None = Field(default=-1, description="Mode of union ControlNets; -1 for none")


class ControlLoRAField(LoRAField):
    """A control LoRA with its image."""

    img: ImageField = Field(description="The control image")


@invocation_output("flux_model_loader_output")
class FluxModelLoaderOutput(BaseInvocationOutput):
    """The parts of a FLUX.1 model."""

    transformer: TransformerField = OutputField(description=FieldDescriptions.transformer, title="Transformer")
    clip: CLIPField = OutputField(description=FieldDescriptions.clip, title="CLIP")
    t5_encoder: T5EncoderField = OutputField(description=FieldDescriptions.t5_encoder, title="T5 Encoder")
    vae: VAEField = OutputField(description=FieldDescriptions.vae, title="VAE")
    max_seq_len: Literal[256, 512] = OutputField(
        description="Maximum number of T5 tokens that the model was trained with", title="Max Seq Length"
    )


@invocation_output("flux_fill_output")
class FluxFillOutput(BaseInvocationOutput):
    """The conditioning of FLUX.1 Fill."""

    fill_cond: FluxFillConditioningField = OutputField(description=FieldDescriptions.cond, title="Conditioning")


@invocation_output("flux_kontext_output")
class FluxKontextOutput(BaseInvocationOutput):
    """A reference image."""

    kontext_cond: FluxKontextConditioningField = OutputField(
        description="The reference image", title="Kontext Conditioning"
    )


@invocation_output("flux_redux_output")
class FluxReduxOutput(BaseInvocationOutput):
    """The embeddings of an image."""

    redux_cond: FluxReduxConditioningField = OutputField(description=FieldDescriptions.cond, title="Conditioning")


@invocation_output("flux_controlnet_output")
class FluxControlNetOutput(BaseInvocationOutput):
    """A ControlNet with its image."""

    control: FluxControlNetField = OutputField(description="The ControlNet")


@invocation_output("flux_control_lora_loader_output")
class FluxControlLoRALoaderOutput(BaseInvocationOutput):
    """A control LoRA with its image."""

    control_lora: ControlLoRAField = OutputField(
        title="Flux Control LoRA", description=FieldDescriptions.control_lora_model, default=None
    )


@invocation_output("flux_lora_loader_output")
class FluxLoRALoaderOutput(BaseInvocationOutput):
    """A transformer and text encoders with LoRAs."""

    transformer: TransformerField | None = OutputField(
        default=None, description=FieldDescriptions.transformer, title="FLUX Transformer"
    )
    clip: CLIPField | None = OutputField(default=None, description=FieldDescriptions.clip, title="CLIP")
    t5_encoder: T5EncoderField | None = OutputField(
        default=None, description=FieldDescriptions.t5_encoder, title="T5 Encoder"
    )
