"""Thin nodes: they collect their inputs and call the pipeline."""

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.clip.fields import CLIPField
from invokeclone.components.denoisers.fields import TransformerField
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.graph.invocations.outputs import ConditioningOutput, LatentsOutput
from invokeclone.graph.vocabulary.fields import (
    ConditioningField,
    DenoiseMaskField,
    Input,
    InputField,
    LatentsField,
    OutputField,
)
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, SubModelType


@invocation_output("tiny_flow_model_loader_output")
class TinyFlowModelLoaderOutput(BaseInvocationOutput):
    """The parts of a model."""

    transformer: TransformerField = OutputField(description="The transformer.")
    clip: CLIPField = OutputField(description="The text encoder.")
    vae: VAEField = OutputField(description="The autoencoder.")


@invocation("tiny_flow_model_loader", title="Tiny Flow Model", category="model", version="1.0.0")
class TinyFlowModelLoaderInvocation(BaseInvocation):
    """Takes a model apart."""

    model: ModelIdentifierField = InputField(description="The model.")

    def invoke(self, context: InvocationContext) -> TinyFlowModelLoaderOutput:
        part, clip = self.model.part, (SubModelType.Tokenizer, SubModelType.TextEncoder)
        return TinyFlowModelLoaderOutput(
            transformer=TransformerField(transformer=part(SubModelType.Transformer), loras=[]),
            clip=CLIPField(tokenizer=part(clip[0]), text_encoder=part(clip[1]), skipped_layers=0, loras=[]),
            vae=VAEField(vae=part(SubModelType.VAE)),
        )


@invocation("tiny_flow_prompt", title="Prompt - Tiny Flow", category="prompt", version="1.0.0")
class TinyFlowPromptInvocation(BaseInvocation):
    """Encodes a prompt."""

    prompt: str = InputField(default="", description="The prompt.")
    clip: CLIPField = InputField(description="The text encoder.", input=Input.Connection)

    def invoke(self, context: InvocationContext) -> ConditioningOutput:
        from invokeclone.families.tiny_flow import pipeline

        from invokeclone.engine.conditioning import ConditioningFieldData

        loaded = context.models.load(self.clip.text_encoder)
        with loaded as text_encoder, context.models.load(self.clip.tokenizer) as tokenizer:
            encoded = pipeline.encode(tokenizer, text_encoder, self.prompt, loaded.device)
        return ConditioningOutput.build(context.conditioning.save(ConditioningFieldData([encoded])))


@invocation("tiny_flow_denoise", title="Denoise - Tiny Flow", category="latents", version="1.0.0")
class TinyFlowDenoiseInvocation(BaseInvocation):
    """Denoises latents."""

    transformer: TransformerField = InputField(description="The transformer.", input=Input.Connection)
    positive_conditioning: ConditioningField = InputField(description="The prompt.", input=Input.Connection)
    negative_conditioning: ConditioningField = InputField(description="The negative prompt.", input=Input.Connection)
    latents: LatentsField | None = InputField(default=None, description="The image.", input=Input.Connection)
    denoise_mask: DenoiseMaskField | None = InputField(default=None, description="Mask.", input=Input.Connection)
    denoising_start: float = InputField(default=0.0, ge=0, le=1, description="Where to begin.")
    steps: int = InputField(default=4, gt=0, description="Steps.")
    cfg_scale: float = InputField(default=3.0, description="Guidance.")
    seed: int = InputField(default=0, description="Seed.")
    width: int = InputField(default=96, multiple_of=16, description="Width.")
    height: int = InputField(default=64, multiple_of=16, description="Height.")

    def invoke(self, context: InvocationContext) -> LatentsOutput:
        from invokeclone.families.tiny_flow import pipeline
        from invokeclone.families.tiny_flow.spec import FAMILY

        fields = (self.positive_conditioning, self.negative_conditioning)
        texts = [context.conditioning.load(field.conditioning_name).conditionings[0] for field in fields]
        shape = FAMILY.architectures[0].latent_space.noise_shape(self.width, self.height)
        loaded = context.models.load(self.transformer.transformer)
        with loaded as transformer:
            latents = pipeline.run(
                transformer,
                (texts[0], texts[1]),
                shape,
                self.seed,
                loaded.device,
                lambda state: context.util.sd_step_callback(state, BaseModelType.Unknown),
                steps=self.steps,
                scale=self.cfg_scale,
                start=self.denoising_start,
                original=context.tensors.load(self.latents.latents_name) if self.latents else None,
                keep=context.tensors.load(self.denoise_mask.mask_name) if self.denoise_mask else None,
            )
        return LatentsOutput.build(context.tensors.save(latents), latents)
