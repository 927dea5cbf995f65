"""The node that selects a Z-Image model and its parts."""

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.denoisers.fields import TransformerField
from invokeclone.components.text_encoders.fields import Qwen3EncoderField
from invokeclone.components.text_encoders.tokenizer_sources import tokenizer_source
from invokeclone.families.z_image.fields import ZImageModelLoaderOutput
from invokeclone.families.z_image.parts import check_main, encoder_source, vae_source
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.vocabulary.fields import FieldDescriptions, Input, InputField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, Classification, ModelType, SubModelType


@invocation(
    "z_image_model_loader",
    title="Main Model - Z-Image",
    tags=["model", "z-image"],
    category="model",
    version="3.1.0",
    classification=Classification.Prototype,
)
class ZImageModelLoaderInvocation(BaseInvocation):
    """Select a Z-Image model, its text encoder and its VAE.

    Without a selection the parts are those of qwen3_source_model, of the model itself, or of another installed model.
    """

    model: ModelIdentifierField = InputField(
        description=FieldDescriptions.z_image_model,
        input=Input.Direct,
        title="Transformer",
        ui_model_base=BaseModelType.ZImage,
        ui_model_type=ModelType.Main,
    )
    vae_model: ModelIdentifierField | None = InputField(
        default=None,
        description="VAE of FLUX.1, which Z-Image uses too",
        input=Input.Direct,
        title="VAE",
        ui_model_base=BaseModelType.Flux,
        ui_model_type=ModelType.VAE,
    )
    qwen3_encoder_model: ModelIdentifierField | None = InputField(
        default=None,
        description="Qwen3 encoder to load",
        input=Input.Direct,
        title="Qwen3 Encoder",
        ui_model_type=ModelType.Qwen3Encoder,
    )
    qwen3_source_model: ModelIdentifierField | None = InputField(
        default=None,
        description="Complete Z-Image model whose Qwen3 encoder and VAE are used",
        input=Input.Direct,
        title="Qwen3 Source",
        ui_model_base=BaseModelType.ZImage,
        ui_model_type=ModelType.Main,
    )

    def invoke(self, context: InvocationContext) -> ZImageModelLoaderOutput:
        """Return references to the parts."""
        mains = [model for model in (self.qwen3_source_model, self.model) if model is not None]
        for model in mains:
            check_main(context, model)
        encoder = encoder_source(context, mains, self.qwen3_encoder_model)
        tokenizer = tokenizer_source(context, encoder, mains)
        vae = vae_source(context, mains, self.vae_model)
        return ZImageModelLoaderOutput(
            transformer=TransformerField(transformer=self.model.part(SubModelType.Transformer), loras=[]),
            qwen3_encoder=Qwen3EncoderField(
                tokenizer=tokenizer.part(SubModelType.Tokenizer), text_encoder=encoder.part(SubModelType.TextEncoder)
            ),
            vae=VAEField(vae=vae.part(SubModelType.VAE)),
        )
