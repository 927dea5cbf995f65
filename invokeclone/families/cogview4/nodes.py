"""CogView4's nodes. They collect their inputs and call the pipeline."""

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.autoencoders.nodes import DecodeLatents, EncodeImage
from invokeclone.components.denoisers.fields import TransformerField
from invokeclone.components.denoisers.inputs import FlowDenoiseInputs
from invokeclone.components.text_encoders.fields import GlmEncoderField
from invokeclone.families.cogview4.fields import CogView4ConditioningField, CogView4ConditioningOutput
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.graph.invocations.metadata import check_base, check_exists, check_type
from invokeclone.graph.invocations.outputs import LatentsOutput
from invokeclone.graph.vocabulary.fields import (
    FieldDescriptions,
    Input,
    InputField,
    OutputField,
    UIComponent,
    WithBoard,
    WithMetadata,
)
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, Classification, ModelType, SubModelType

_BASE = BaseModelType.CogView4


@invocation_output("cogview4_model_loader_output")
class CogView4ModelLoaderOutput(BaseInvocationOutput):
    """The parts of a CogView4 model."""

    transformer: TransformerField = OutputField(description=FieldDescriptions.transformer, title="Transformer")
    glm_encoder: GlmEncoderField = OutputField(description=FieldDescriptions.glm_encoder, title="GLM Encoder")
    vae: VAEField = OutputField(description=FieldDescriptions.vae, title="VAE")


@invocation(
    "cogview4_model_loader",
    title="Main Model - CogView4",
    tags=["model", "cogview4"],
    category="model",
    version="1.0.0",
    classification=Classification.Prototype,
)
class CogView4ModelLoaderInvocation(BaseInvocation):
    """Split a CogView4 model into transformer, text encoder and VAE."""

    model: ModelIdentifierField = InputField(
        description=FieldDescriptions.cogview4_model,
        input=Input.Direct,
        ui_model_base=_BASE,
        ui_model_type=ModelType.Main,
    )

    def invoke(self, context: InvocationContext) -> CogView4ModelLoaderOutput:
        """Return references to the parts."""
        check_exists(context, self.model)
        check_type(context, self.model, ModelType.Main)
        check_base(context.models.get_config(self.model.key), _BASE)
        part = self.model.part
        return CogView4ModelLoaderOutput(
            transformer=TransformerField(transformer=part(SubModelType.Transformer), loras=[]),
            glm_encoder=GlmEncoderField(
                tokenizer=part(SubModelType.Tokenizer), text_encoder=part(SubModelType.TextEncoder)
            ),
            vae=VAEField(vae=part(SubModelType.VAE)),
        )


@invocation(
    "cogview4_text_encoder",
    title="Prompt - CogView4",
    tags=["prompt", "conditioning", "cogview4"],
    category="prompt",
    version="1.0.0",
    classification=Classification.Prototype,
)
class CogView4TextEncoderInvocation(BaseInvocation):
    """Encode a prompt for CogView4; it has no prompt language."""

    prompt: str = InputField(description="The prompt", ui_component=UIComponent.Textarea)
    glm_encoder: GlmEncoderField = InputField(
        description=FieldDescriptions.glm_encoder, input=Input.Connection, title="GLM Encoder"
    )

    def invoke(self, context: InvocationContext) -> CogView4ConditioningOutput:
        """Encode the prompt."""
        from invokeclone.engine.conditioning import ConditioningFieldData
        from invokeclone.engine.loaded import device_of
        from invokeclone.families.cogview4 import pipeline

        loaded = context.models.load(self.glm_encoder.text_encoder)
        check_base(loaded.config, _BASE)
        with loaded as text_encoder, context.models.load(self.glm_encoder.tokenizer) as tokenizer:
            context.util.signal_progress("Running GLM text encoder")
            info = pipeline.encode(tokenizer, text_encoder, self.prompt, device_of(loaded, text_encoder))
        return CogView4ConditioningOutput.build(context.conditioning.save(ConditioningFieldData([info])))


@invocation(
    "cogview4_denoise",
    title="Denoise - CogView4",
    tags=["image", "cogview4"],
    category="latents",
    version="1.1.0",
    classification=Classification.Prototype,
)
class CogView4DenoiseInvocation(BaseInvocation, FlowDenoiseInputs, WithMetadata, WithBoard):
    """Denoise latents with CogView4."""

    positive_conditioning: CogView4ConditioningField = InputField(
        description=FieldDescriptions.positive_cond, input=Input.Connection
    )
    negative_conditioning: CogView4ConditioningField = InputField(
        description=FieldDescriptions.negative_cond, input=Input.Connection
    )
    cfg_scale: float | list[float] = InputField(default=3.5, description=FieldDescriptions.cfg_scale, title="CFG Scale")
    width: int = InputField(default=1024, multiple_of=32, description=FieldDescriptions.width)
    height: int = InputField(default=1024, multiple_of=32, description=FieldDescriptions.height)
    steps: int = InputField(default=25, gt=0, description=FieldDescriptions.steps)
    seed: int = InputField(default=0, description=FieldDescriptions.seed)

    def invoke(self, context: InvocationContext) -> LatentsOutput:
        """Return the denoised latents."""
        from invokeclone.components.denoisers.runs import denoise_latents
        from invokeclone.families.cogview4 import pipeline
        from invokeclone.families.cogview4.conditioning import CogView4ConditioningInfo

        return denoise_latents(self, context, _BASE, CogView4ConditioningInfo, pipeline.denoise)


@invocation(
    "cogview4_i2l",
    title="Image to Latents - CogView4",
    tags=["image", "latents", "vae", "i2l", "cogview4"],
    category="latents",
    version="1.0.0",
    classification=Classification.Prototype,
)
class CogView4ImageToLatentsInvocation(EncodeImage, WithMetadata, WithBoard):
    """Encode an image to latents with CogView4's VAE."""

    shifted = False


@invocation(
    "cogview4_l2i",
    title="Latents to Image - CogView4",
    tags=["latents", "image", "vae", "l2i", "cogview4"],
    category="latents",
    version="1.0.0",
    classification=Classification.Prototype,
)
class CogView4LatentsToImageInvocation(DecodeLatents):
    """Decode latents to an image with CogView4's VAE."""

    shifted = False
