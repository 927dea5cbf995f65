"""The prompt node of FLUX.1."""

from typing import Literal

from invokeclone.components.clip.fields import CLIPField
from invokeclone.components.flux.fields import FluxConditioningField, FluxConditioningOutput
from invokeclone.components.text_encoders.fields import T5EncoderField
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.vocabulary.fields import FieldDescriptions, Input, InputField, TensorField, UIComponent


@invocation(
    "flux_text_encoder",
    title="Prompt - FLUX",
    tags=["prompt", "conditioning", "flux"],
    category="prompt",
    version="1.1.2",
)
class FluxTextEncoderInvocation(BaseInvocation):
    """Encode a prompt for FLUX.1."""

    clip: CLIPField = InputField(title="CLIP", description=FieldDescriptions.clip, input=Input.Connection)
    t5_encoder: T5EncoderField = InputField(
        title="T5Encoder", description=FieldDescriptions.t5_encoder, input=Input.Connection
    )
    t5_max_seq_len: Literal[256, 512] = InputField(
        description="Number of T5 tokens: 256 for schnell, 512 for other models"
    )
    prompt: str = InputField(description="The prompt", ui_component=UIComponent.Textarea)
    mask: TensorField | None = InputField(
        default=None, description="Mask of the region that the prompt applies to; default: the whole image"
    )

    def invoke(self, context: InvocationContext) -> FluxConditioningOutput:
        """Encode the prompt with T5 and CLIP, one after the other."""
        from invokeclone.components.denoisers.loras import patch_loras
        from invokeclone.components.flux.conditioning import FLUXConditioningInfo
        from invokeclone.components.text_encoders.encode import encode_t5
        from invokeclone.engine.conditioning import ConditioningFieldData
        from invokeclone.engine.loaded import device_of
        from invokeclone.families.flux.pipeline import encode_clip

        t5_info, clip_info = (context.models.load(f.text_encoder) for f in (self.t5_encoder, self.clip))
        with t5_info as encoder, context.models.load(self.t5_encoder.tokenizer) as tokenizer:
            context.util.signal_progress("Running T5 encoder")
            with patch_loras(context, self.t5_encoder.loras, encoder, "t5"):
                device = device_of(t5_info, encoder)
                embeds = encode_t5(tokenizer, encoder, self.prompt, self.t5_max_seq_len, device).cpu()
        with clip_info as encoder, context.models.load(self.clip.tokenizer) as tokenizer:
            context.util.signal_progress("Running CLIP encoder")
            with patch_loras(context, self.clip.loras, encoder, "clip"):
                pooled = encode_clip(tokenizer, encoder, self.prompt, device_of(clip_info, encoder)).cpu()
        info = FLUXConditioningInfo(clip_embeds=pooled, t5_embeds=embeds)
        name = context.conditioning.save(ConditioningFieldData(conditionings=[info]))
        return FluxConditioningOutput(conditioning=FluxConditioningField(conditioning_name=name, mask=self.mask))
