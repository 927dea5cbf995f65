"""The node that references the parts of FLUX.2 klein models. It loads no model."""

from typing import Literal

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.denoisers.fields import TransformerField
from invokeclone.components.text_encoders.fields import Qwen3EncoderField
from invokeclone.components.text_encoders.tokenizer_sources import tokenizer_source
from invokeclone.families.flux2.fields import Flux2KleinModelLoaderOutput
from invokeclone.families.flux2.parts import encoder_source, vae_source
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, Classification, invocation
from invokeclone.graph.invocations.metadata import check_base, check_exists, check_type
from invokeclone.graph.vocabulary.fields import FieldDescriptions, Input, InputField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, Flux2VariantType, ModelType, SubModelType


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
        check_exists(context, self.model)
        check_type(context, self.model, ModelType.Main)
        record = context.models.get_config(self.model.key)
        check_base(record, BaseModelType.Flux2)
        if getattr(record, "variant", None) == Flux2VariantType.Dev:
            message = f"{self.model.name} is FLUX.2 dev, which this version cannot run: select a FLUX.2 klein model"
            raise ValueError(message)
        encoder = encoder_source(context, self.model, self.qwen3_encoder_model, self.qwen3_source_model)
        mains = [model for model in (self.qwen3_source_model, self.model) if model is not None]
        tokenizer = tokenizer_source(context, encoder, mains)
        vae = vae_source(context, self.model, self.vae_model, self.qwen3_source_model)
        return Flux2KleinModelLoaderOutput(
            transformer=TransformerField(transformer=self.model.part(SubModelType.Transformer), loras=[]),
            qwen3_encoder=Qwen3EncoderField(
                tokenizer=tokenizer.part(SubModelType.Tokenizer),
                text_encoder=encoder.part(SubModelType.TextEncoder),
                loras=[],
            ),
            vae=VAEField(vae=vae.part(SubModelType.VAE)),
            max_seq_len=self.max_seq_len,
        )
