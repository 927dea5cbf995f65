"""The prompt node of Stable Diffusion 1."""

from invokeclone.components.clip.fields import CLIPField
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import ConditioningOutput
from invokeclone.graph.vocabulary.fields import (
    ConditioningField,
    FieldDescriptions,
    InputField,
    TensorField,
    UIComponent,
)


@invocation("compel", title="Prompt - SD1.5", tags=["prompt", "compel"], category="prompt", version="1.2.1")
class CompelInvocation(BaseInvocation):
    """Encode a prompt, with compel's weights and operators, to conditioning."""

    prompt: str = InputField(default="", description="The prompt, in compel syntax", ui_component=UIComponent.Textarea)
    clip: CLIPField = InputField(title="CLIP", description=FieldDescriptions.clip)
    mask: TensorField | None = InputField(
        default=None, description="Mask of the region that the prompt applies to; default: the whole image"
    )

    def invoke(self, context: InvocationContext) -> ConditioningOutput:
        """Encode the prompt."""
        from invokeclone.components.clip.encode import tokenization
        from invokeclone.components.denoisers.loras import patch_loras
        from invokeclone.engine.conditioning import ConditioningFieldData
        from invokeclone.engine.loaded import device_of
        from invokeclone.families.stable_diffusion import pipeline
        from invokeclone.families.stable_diffusion.conditioning import BasicConditioningInfo
        from invokeclone.families.stable_diffusion.textual_inversions import with_embeddings

        text_encoder_info = context.models.load(self.clip.text_encoder)
        tokenizer_info = context.models.load(self.clip.tokenizer)
        with text_encoder_info as text_encoder, tokenizer_info as tokenizer:
            if context.config.get().log_tokenization:
                context.logger.info(tokenization(tokenizer, self.prompt))
            context.util.signal_progress("Building conditioning")
            device = device_of(text_encoder_info, text_encoder)
            base = text_encoder_info.config.base
            with (
                patch_loras(context, self.clip.loras, text_encoder, "clip"),
                with_embeddings(context, self.prompt, tokenizer, text_encoder, base) as extended,
            ):
                embeds = pipeline.encode(extended, text_encoder, self.prompt, device, self.clip.skipped_layers)
        name = context.conditioning.save(ConditioningFieldData(conditionings=[BasicConditioningInfo(embeds=embeds)]))
        return ConditioningOutput(conditioning=ConditioningField(conditioning_name=name, mask=self.mask))
