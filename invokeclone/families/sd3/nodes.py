"""Stable Diffusion 3's nodes. They collect their inputs and call the pipeline."""

from typing import TYPE_CHECKING

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.autoencoders.nodes import DecodeLatents, EncodeImage
from invokeclone.components.clip.fields import CLIPField
from invokeclone.components.denoisers.fields import TransformerField
from invokeclone.components.denoisers.inputs import FlowDenoiseInputs
from invokeclone.components.separate_parts import clip_of, first_installed, includes, t5_of
from invokeclone.components.text_encoders.fields import T5EncoderField
from invokeclone.families.sd3.fields import SD3ConditioningField, SD3ConditioningOutput
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.graph.invocations.metadata import check_base, check_exists, check_type
from invokeclone.graph.invocations.outputs import LatentsOutput
from invokeclone.graph.vocabulary.fields import (
    FieldDescriptions,
    Input,
    InputField,
    OutputField,
    WithBoard,
    WithMetadata,
)
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ClipVariantType, ModelType, SubModelType

if TYPE_CHECKING:
    import torch

_BASE = BaseModelType.StableDiffusion3


@invocation_output("sd3_model_loader_output")
class Sd3ModelLoaderOutput(BaseInvocationOutput):
    """The parts of a Stable Diffusion 3 model."""

    transformer: TransformerField = OutputField(description=FieldDescriptions.transformer, title="Transformer")
    clip_l: CLIPField = OutputField(description=FieldDescriptions.clip, title="CLIP L")
    clip_g: CLIPField = OutputField(description=FieldDescriptions.clip, title="CLIP G")
    t5_encoder: T5EncoderField = OutputField(description=FieldDescriptions.t5_encoder, title="T5 Encoder")
    vae: VAEField = OutputField(description=FieldDescriptions.vae, title="VAE")


@invocation("sd3_model_loader", title="Main Model - SD3", tags=["model", "sd3"], category="model", version="1.0.1")
class Sd3ModelLoaderInvocation(BaseInvocation):
    """Split a Stable Diffusion 3 model into transformer, text encoders and VAE, some of which may be separate models."""

    model: ModelIdentifierField = InputField(
        description=FieldDescriptions.sd3_model, input=Input.Direct, ui_model_base=_BASE, ui_model_type=ModelType.Main
    )
    t5_encoder_model: ModelIdentifierField | None = InputField(
        description=FieldDescriptions.t5_encoder_model,
        input=Input.Direct,
        title="T5 Encoder",
        default=None,
        ui_model_type=ModelType.T5Encoder,
    )
    clip_l_model: ModelIdentifierField | None = InputField(
        description=FieldDescriptions.clip_l_model,
        input=Input.Direct,
        title="CLIP L Encoder",
        default=None,
        ui_model_type=ModelType.CLIPEmbed,
        ui_model_variant=ClipVariantType.L,
    )
    clip_g_model: ModelIdentifierField | None = InputField(
        description=FieldDescriptions.clip_g_model,
        input=Input.Direct,
        title="CLIP G Encoder",
        default=None,
        ui_model_type=ModelType.CLIPEmbed,
        ui_model_variant=ClipVariantType.G,
    )
    vae_model: ModelIdentifierField | None = InputField(
        description=FieldDescriptions.vae_model,
        title="VAE",
        default=None,
        ui_model_base=_BASE,
        ui_model_type=ModelType.VAE,
    )

    def invoke(self, context: InvocationContext) -> Sd3ModelLoaderOutput:
        """Return references to the parts."""
        self._check(context)
        part = self.model.part
        clip_l = (part(SubModelType.Tokenizer), part(SubModelType.TextEncoder))
        clip_g = (part(SubModelType.Tokenizer2), part(SubModelType.TextEncoder2))
        if self.clip_l_model is not None:
            clip_l = clip_of(context, self.clip_l_model, ClipVariantType.L)
        if self.clip_g_model is not None:
            clip_g = clip_of(context, self.clip_g_model, ClipVariantType.G)
        return Sd3ModelLoaderOutput(
            transformer=TransformerField(transformer=part(SubModelType.Transformer), loras=[]),
            clip_l=_clip(*clip_l),
            clip_g=_clip(*clip_g),
            t5_encoder=self._t5(context),
            vae=VAEField(vae=self.vae_model or part(SubModelType.VAE)),
        )

    def _t5(self, context: InvocationContext) -> T5EncoderField:
        """Return the selected T5 encoder, the main model's own, or if it has none, an installed one.

        Without any it is the main model's, as prompts may be encoded without T5.
        """
        separate = self.t5_encoder_model
        if separate is None and not includes(context, self.model, SubModelType.TextEncoder3):
            separate = first_installed(context, lambda _: True, type=ModelType.T5Encoder)
            if separate is not None:
                context.logger.info(f"{self.model.name} comes without a T5 encoder: {separate.name} is used")
        if separate is None:
            tokenizer, encoder = self.model.part(SubModelType.Tokenizer3), self.model.part(SubModelType.TextEncoder3)
        else:
            tokenizer, encoder = t5_of(context, separate)
        return T5EncoderField(tokenizer=tokenizer, text_encoder=encoder, loras=[])

    def _check(self, context: InvocationContext) -> None:
        """Raise ValueError for a model that is not installed or of the wrong kind."""
        for model, model_type in ((self.model, ModelType.Main), (self.vae_model, ModelType.VAE)):
            if model is not None:
                check_exists(context, model)
                check_type(context, model, model_type)
        check_base(context.models.get_config(self.model.key), _BASE)


def _clip(tokenizer: ModelIdentifierField, encoder: ModelIdentifierField) -> CLIPField:
    return CLIPField(tokenizer=tokenizer, text_encoder=encoder, skipped_layers=0, loras=[])


@invocation(
    "sd3_text_encoder",
    title="Prompt - SD3",
    tags=["prompt", "conditioning", "sd3"],
    category="prompt",
    version="1.0.1",
)
class Sd3TextEncoderInvocation(BaseInvocation):
    """Encode a prompt for Stable Diffusion 3; it has no prompt language."""

    clip_l: CLIPField = InputField(description=FieldDescriptions.clip, input=Input.Connection, title="CLIP L")
    clip_g: CLIPField = InputField(description=FieldDescriptions.clip, input=Input.Connection, title="CLIP G")
    t5_encoder: T5EncoderField | None = InputField(
        default=None, description=FieldDescriptions.t5_encoder, input=Input.Connection, title="T5Encoder"
    )
    prompt: str = InputField(description="The prompt")

    def invoke(self, context: InvocationContext) -> SD3ConditioningOutput:
        """Encode the prompt, one encoder after the other."""
        from invokeclone.engine.conditioning import ConditioningFieldData
        from invokeclone.families.sd3.conditioning import SD3ConditioningInfo

        pooled_l, embeds_l = self._encode_clip(context, self.clip_l)
        pooled_g, embeds_g = self._encode_clip(context, self.clip_g)
        t5 = None if self.t5_encoder is None else self._encode_t5(context, self.t5_encoder)
        info = SD3ConditioningInfo(pooled_l, embeds_l, pooled_g, embeds_g, t5)
        return SD3ConditioningOutput.build(context.conditioning.save(ConditioningFieldData([info])))

    def _encode_clip(self, context: InvocationContext, clip: CLIPField) -> "tuple[torch.Tensor, torch.Tensor]":
        """Return pooled embeddings and embeddings."""
        from invokeclone.components.clip.encode import skip_layers
        from invokeclone.engine.loaded import device_of
        from invokeclone.families.sd3 import pipeline

        if clip.loras:
            raise ValueError("LoRAs are not supported for Stable Diffusion 3's text encoders: remove their nodes")
        loaded = context.models.load(clip.text_encoder)
        with loaded as text_encoder, context.models.load(clip.tokenizer) as tokenizer:
            context.util.signal_progress("Running CLIP encoder")
            with skip_layers(text_encoder, clip.skipped_layers):
                return pipeline.encode_clip(tokenizer, text_encoder, self.prompt, device_of(loaded, text_encoder))

    def _encode_t5(self, context: InvocationContext, t5: T5EncoderField) -> "torch.Tensor":
        from invokeclone.components.text_encoders.encode import encode_t5
        from invokeclone.engine.loaded import device_of
        from invokeclone.families.sd3 import pipeline

        if t5.loras:
            raise ValueError("LoRAs are not supported for Stable Diffusion 3's text encoders: remove their nodes")
        loaded = context.models.load(t5.text_encoder)
        with loaded as text_encoder, context.models.load(t5.tokenizer) as tokenizer:
            context.util.signal_progress("Running T5 encoder")
            device = device_of(loaded, text_encoder)
            return encode_t5(tokenizer, text_encoder, self.prompt, pipeline.T5_TOKENS, device).cpu()


@invocation("sd3_denoise", title="Denoise - SD3", tags=["image", "sd3"], category="latents", version="1.2.0")
class SD3DenoiseInvocation(BaseInvocation, FlowDenoiseInputs, WithMetadata, WithBoard):
    """Denoise latents with Stable Diffusion 3."""

    positive_conditioning: SD3ConditioningField = InputField(
        description=FieldDescriptions.positive_cond, input=Input.Connection
    )
    negative_conditioning: SD3ConditioningField = InputField(
        description=FieldDescriptions.negative_cond, input=Input.Connection
    )
    cfg_scale: float | list[float] = InputField(default=3.5, description=FieldDescriptions.cfg_scale, title="CFG Scale")
    width: int = InputField(default=1024, multiple_of=16, description=FieldDescriptions.width)
    height: int = InputField(default=1024, multiple_of=16, description=FieldDescriptions.height)
    steps: int = InputField(default=10, gt=0, description=FieldDescriptions.steps)
    seed: int = InputField(default=0, description=FieldDescriptions.seed)

    def invoke(self, context: InvocationContext) -> LatentsOutput:
        """Return the denoised latents."""
        from invokeclone.components.denoisers.runs import denoise_latents
        from invokeclone.families.sd3 import pipeline
        from invokeclone.families.sd3.conditioning import SD3ConditioningInfo

        return denoise_latents(self, context, _BASE, SD3ConditioningInfo, pipeline.denoise)


@invocation(
    "sd3_i2l",
    title="Image to Latents - SD3",
    tags=["image", "latents", "vae", "i2l", "sd3"],
    category="latents",
    version="1.0.1",
)
class SD3ImageToLatentsInvocation(EncodeImage, WithMetadata, WithBoard):
    """Encode an image to latents with Stable Diffusion 3's VAE."""

    shifted = False


@invocation(
    "sd3_l2i",
    title="Latents to Image - SD3",
    tags=["latents", "image", "vae", "l2i", "sd3"],
    category="latents",
    version="1.3.2",
)
class SD3LatentsToImageInvocation(DecodeLatents):
    """Decode latents to an image with Stable Diffusion 3's VAE."""

    shifted = False
