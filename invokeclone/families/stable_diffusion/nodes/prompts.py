"""The prompt node of Stable Diffusion 1."""

from invokeclone.components.clip.fields import CLIPField
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.fields import ConditioningField, FieldDescriptions, InputField, TensorField, UIComponent
from invokeclone.graph.invocation import BaseInvocation, invocation
from invokeclone.graph.model_fields import LoRAField
from invokeclone.graph.outputs import ConditioningOutput


class NotSupportedYet(ValueError):
    """A node was given something that this version cannot do."""


def refuse_loras(loras: list[LoRAField]) -> None:
    """Raise NotSupportedYet when there are LoRAs."""
    if loras:
        names = ", ".join(lora.lora.name for lora in loras)
        message = f"LoRAs are not supported yet: take {names} out of the graph"
        raise NotSupportedYet(message)


@invocation("compel", title="Prompt - SD1.5", tags=["prompt", "compel"], category="prompt", version="1.2.1")
class CompelInvocation(BaseInvocation):
    """Turns a prompt, with compel's weights and operators, into conditioning."""

    prompt: str = InputField(
        default="", description="The prompt, in compel's language", ui_component=UIComponent.Textarea
    )
    clip: CLIPField = InputField(title="CLIP", description=FieldDescriptions.clip)
    mask: TensorField | None = InputField(
        default=None, description="Mask of the region that the prompt holds for; none: the whole image"
    )

    def invoke(self, context: InvocationContext) -> ConditioningOutput:
        """Encode the prompt."""
        from invokeclone.components.clip.encode import tokenization
        from invokeclone.engine.conditioning import ConditioningFieldData
        from invokeclone.engine.loaded import device_of
        from invokeclone.families.stable_diffusion import pipeline
        from invokeclone.families.stable_diffusion.conditioning import BasicConditioningInfo

        refuse_loras(self.clip.loras)
        text_encoder_info = context.models.load(self.clip.text_encoder)
        tokenizer_info = context.models.load(self.clip.tokenizer)
        with text_encoder_info as text_encoder, tokenizer_info as tokenizer:
            if context.config.get().log_tokenization:
                context.logger.info(tokenization(tokenizer, self.prompt))
            context.util.signal_progress("Building conditioning")
            device = device_of(text_encoder_info, text_encoder)
            embeds = pipeline.encode(tokenizer, text_encoder, self.prompt, device, self.clip.skipped_layers)
        name = context.conditioning.save(ConditioningFieldData(conditionings=[BasicConditioningInfo(embeds=embeds)]))
        return ConditioningOutput(conditioning=ConditioningField(conditioning_name=name, mask=self.mask))
