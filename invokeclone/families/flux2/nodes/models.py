"""The nodes that reference the parts of FLUX.2 models. They load no model."""

from typing import Literal

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.denoisers.fields import TransformerField
from invokeclone.components.text_encoders.fields import MistralEncoderField, Qwen3EncoderField
from invokeclone.families.flux2.fields import Flux2DevModelLoaderOutput, Flux2KleinModelLoaderOutput
from invokeclone.families.flux2.parts import find_parts
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, Classification, invocation
from invokeclone.graph.vocabulary.fields import FieldDescriptions, Input, InputField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType


@invocation(
    "flux2_klein_model_loader",
    title="Main Model - Flux2 Klein",
    tags=["model", "flux", "klein", "qwen3"],
    category="model",
    version="1.1.0",
    classification=Classification.Prototype,
)
class Flux2KleinModelLoaderInvocation(BaseInvocation):
    """Select a FLUX.2 klein model, its text encoder and its VAE."""

    model: ModelIdentifierField = InputField(
        description=FieldDescriptions.flux_model,
        input=Input.Direct,
        title="Transformer",
        ui_model_base=BaseModelType.Flux2,
        ui_model_type=ModelType.Main,
    )
    vae_model: ModelIdentifierField | None = InputField(
        default=None,
        description="VAE; default: the model's own, or an installed one",
        input=Input.Direct,
        title="VAE",
        ui_model_base=[BaseModelType.Flux, BaseModelType.Flux2],
        ui_model_type=ModelType.VAE,
    )
    qwen3_encoder_model: ModelIdentifierField | None = InputField(
        default=None,
        description="Qwen3 text encoder; default: that of qwen3_source_model, the model's own, or an installed one",
        input=Input.Direct,
        title="Qwen3 Encoder",
        ui_model_type=ModelType.Qwen3Encoder,
    )
    qwen3_source_model: ModelIdentifierField | None = InputField(
        default=None,
        description="FLUX.2 klein model in a folder, whose text encoder and VAE are used where the model has none",
        input=Input.Direct,
        title="Qwen3 Source",
        ui_model_base=BaseModelType.Flux2,
        ui_model_type=ModelType.Main,
    )
    max_seq_len: Literal[256, 512] = InputField(
        default=512, description="Number of tokens of prompts", title="Max Seq Length"
    )

    def invoke(self, context: InvocationContext) -> Flux2KleinModelLoaderOutput:
        """Return references to the parts."""
        parts = find_parts(
            context, self.model, self.qwen3_encoder_model, self.vae_model, self.qwen3_source_model, dev=False
        )
        return Flux2KleinModelLoaderOutput(
            transformer=TransformerField(transformer=self.model.part(SubModelType.Transformer), loras=[]),
            qwen3_encoder=Qwen3EncoderField(
                tokenizer=parts.tokenizer.part(SubModelType.Tokenizer),
                text_encoder=parts.text_encoder.part(SubModelType.TextEncoder),
                loras=[],
            ),
            vae=VAEField(vae=parts.vae.part(SubModelType.VAE)),
            max_seq_len=self.max_seq_len,
        )


@invocation(
    "flux2_dev_model_loader",
    title="Main Model - FLUX.2 [dev]",
    tags=["model", "flux", "flux2", "dev", "mistral"],
    category="model",
    version="1.0.0",
    classification=Classification.Prototype,
)
class Flux2DevModelLoaderInvocation(BaseInvocation):
    """Select a FLUX.2 dev model, its text encoder and its VAE."""

    model: ModelIdentifierField = InputField(
        description=FieldDescriptions.flux_model,
        input=Input.Direct,
        title="Transformer",
        ui_model_base=BaseModelType.Flux2,
        ui_model_type=ModelType.Main,
    )
    vae_model: ModelIdentifierField | None = InputField(
        default=None,
        description="VAE; default: the model's own, or an installed one",
        input=Input.Direct,
        title="VAE",
        ui_model_base=BaseModelType.Flux2,
        ui_model_type=ModelType.VAE,
    )
    mistral_encoder_model: ModelIdentifierField | None = InputField(
        default=None,
        description="Mistral text encoder; default: that of mistral_source_model, the model's own, or an installed one",
        input=Input.Direct,
        title="Mistral Encoder",
        ui_model_type=ModelType.MistralEncoder,
    )
    mistral_source_model: ModelIdentifierField | None = InputField(
        default=None,
        description="FLUX.2 dev model in a folder, whose text encoder and VAE are used where the model has none",
        input=Input.Direct,
        title="Mistral Source (Diffusers)",
        ui_model_base=BaseModelType.Flux2,
        ui_model_type=ModelType.Main,
        ui_model_format=ModelFormat.Diffusers,
    )
    max_seq_len: Literal[256, 512] = InputField(
        default=512, description="Number of tokens of prompts", title="Max Seq Length"
    )

    def invoke(self, context: InvocationContext) -> Flux2DevModelLoaderOutput:
        """Return references to the parts."""
        parts = find_parts(
            context, self.model, self.mistral_encoder_model, self.vae_model, self.mistral_source_model, dev=True
        )
        return Flux2DevModelLoaderOutput(
            transformer=TransformerField(transformer=self.model.part(SubModelType.Transformer), loras=[]),
            mistral_encoder=MistralEncoderField(
                tokenizer=parts.tokenizer.part(SubModelType.Tokenizer),
                text_encoder=parts.text_encoder.part(SubModelType.TextEncoder),
                loras=[],
            ),
            vae=VAEField(vae=parts.vae.part(SubModelType.VAE)),
            max_seq_len=self.max_seq_len,
        )
