"""Output types of FLUX.2's model loaders."""

from typing import Literal

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.denoisers.fields import TransformerField
from invokeclone.components.text_encoders.fields import MistralEncoderField, Qwen3EncoderField
from invokeclone.graph.invocations.invocation import BaseInvocationOutput, invocation_output
from invokeclone.graph.vocabulary.descriptions import FieldDescriptions
from invokeclone.graph.vocabulary.fields import OutputField


@invocation_output("flux2_klein_model_loader_output")
class Flux2KleinModelLoaderOutput(BaseInvocationOutput):
    """The parts of a FLUX.2 klein model."""

    transformer: TransformerField = OutputField(description=FieldDescriptions.transformer, title="Transformer")
    qwen3_encoder: Qwen3EncoderField = OutputField(description=FieldDescriptions.qwen3_encoder, title="Qwen3 Encoder")
    vae: VAEField = OutputField(description=FieldDescriptions.vae, title="VAE")
    max_seq_len: Literal[256, 512] = OutputField(description="Number of tokens of prompts", title="Max Seq Length")


@invocation_output("flux2_klein_lora_loader_output")
class Flux2KleinLoRALoaderOutput(BaseInvocationOutput):
    """A transformer and a text encoder with LoRAs."""

    transformer: TransformerField | None = OutputField(
        default=None, description=FieldDescriptions.transformer, title="Transformer"
    )
    qwen3_encoder: Qwen3EncoderField | None = OutputField(
        default=None, description=FieldDescriptions.qwen3_encoder, title="Qwen3 Encoder"
    )


@invocation_output("flux2_dev_model_loader_output")
class Flux2DevModelLoaderOutput(BaseInvocationOutput):
    """The parts of a FLUX.2 dev model."""

    transformer: TransformerField = OutputField(description=FieldDescriptions.transformer, title="Transformer")
    mistral_encoder: MistralEncoderField = OutputField(
        description=FieldDescriptions.mistral_encoder, title="Mistral Encoder"
    )
    vae: VAEField = OutputField(description=FieldDescriptions.vae, title="VAE")
    max_seq_len: Literal[256, 512] = OutputField(description="Number of tokens of prompts", title="Max Seq Length")


@invocation_output("flux2_dev_lora_loader_output")
class Flux2DevLoRALoaderOutput(BaseInvocationOutput):
    """A transformer and a text encoder with LoRAs."""

    transformer: TransformerField | None = OutputField(
        default=None, description=FieldDescriptions.transformer, title="Transformer"
    )
    mistral_encoder: MistralEncoderField | None = OutputField(
        default=None, description=FieldDescriptions.mistral_encoder, title="Mistral Encoder"
    )
