"""The node that references the parts of FLUX.1 models. It loads no model."""

from typing import Literal

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.clip.fields import CLIPField
from invokeclone.components.denoisers.fields import TransformerField
from invokeclone.components.separate_parts import clip_of, includes, t5_of, t5_tokenizer_for
from invokeclone.components.text_encoders.fields import T5EncoderField
from invokeclone.families.flux.fields import FluxModelLoaderOutput
from invokeclone.families.flux.parts import source_of
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.metadata import check_base, check_exists, check_type
from invokeclone.graph.vocabulary.fields import FieldDescriptions, InputField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import (
    BaseModelType,
    ClipVariantType,
    FluxVariantType,
    ModelType,
    SubModelType,
)


@invocation("flux_model_loader", title="Main Model - FLUX", tags=["model", "flux"], category="model", version="1.1.0")
class FluxModelLoaderInvocation(BaseInvocation):
    """Select a FLUX.1 model, its text encoders and its VAE."""

    model: ModelIdentifierField = InputField(
        description=FieldDescriptions.flux_model, ui_model_base=BaseModelType.Flux, ui_model_type=ModelType.Main
    )
    t5_encoder_model: ModelIdentifierField | None = InputField(
        default=None,
        description=FieldDescriptions.t5_encoder_model,
        title="T5 Encoder",
        ui_model_type=ModelType.T5Encoder,
    )
    clip_embed_model: ModelIdentifierField | None = InputField(
        default=None,
        description=FieldDescriptions.clip_embed_model,
        title="CLIP Embed",
        ui_model_type=ModelType.CLIPEmbed,
    )
    vae_model: ModelIdentifierField | None = InputField(
        default=None,
        description=FieldDescriptions.vae_model,
        title="VAE",
        ui_model_base=BaseModelType.Flux,
        ui_model_type=ModelType.VAE,
    )

    def invoke(self, context: InvocationContext) -> FluxModelLoaderOutput:
        """Return references to the parts."""
        check_exists(context, self.model)
        check_type(context, self.model, ModelType.Main)
        check_base(context.models.get_config(self.model.key), BaseModelType.Flux)
        clip = source_of(context, self.model, self.clip_embed_model, SubModelType.TextEncoder, "clip_embed_model")
        t5 = source_of(context, self.model, self.t5_encoder_model, SubModelType.TextEncoder2, "t5_encoder_model")
        vae = source_of(context, self.model, self.vae_model, SubModelType.VAE, "vae_model")
        if vae is self.vae_model:
            check_exists(context, vae)
            check_type(context, vae, ModelType.VAE)
        part = self.model.part
        clip_parts = (part(SubModelType.Tokenizer), part(SubModelType.TextEncoder))
        if clip is not self.model:
            clip_parts = clip_of(context, clip, ClipVariantType.L)
        t5_parts = (part(SubModelType.Tokenizer2), part(SubModelType.TextEncoder2))
        if t5 is not self.model:
            t5_parts = t5_of(context, t5)
        elif not includes(context, t5, SubModelType.Tokenizer2):
            t5_parts = (t5_tokenizer_for(context, t5), t5_parts[1])
        return FluxModelLoaderOutput(
            transformer=TransformerField(transformer=part(SubModelType.Transformer), loras=[]),
            clip=CLIPField(tokenizer=clip_parts[0], text_encoder=clip_parts[1], skipped_layers=0, loras=[]),
            t5_encoder=T5EncoderField(tokenizer=t5_parts[0], text_encoder=t5_parts[1], loras=[]),
            vae=VAEField(vae=vae.part(SubModelType.VAE)),
            max_seq_len=self._tokens(context),
        )

    def _tokens(self, context: InvocationContext) -> Literal[256, 512]:
        variant = getattr(context.models.get_config(self.model.key), "variant", None)
        return 256 if variant == FluxVariantType.Schnell else 512
