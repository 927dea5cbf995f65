"""The prompt node of FLUX.2 klein."""

from typing import Literal

from invokeclone.components.flux.fields import FluxConditioningField, FluxConditioningOutput
from invokeclone.components.text_encoders.fields import Qwen3EncoderField
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, Classification, invocation
from invokeclone.graph.vocabulary.fields import FieldDescriptions, Input, InputField, TensorField, UIComponent


@invocation(
    "flux2_klein_text_encoder",
    title="Prompt - Flux2 Klein",
    tags=["prompt", "conditioning", "flux", "klein", "qwen3"],
    category="prompt",
    version="1.1.1",
    classification=Classification.Prototype,
)
class Flux2KleinTextEncoderInvocation(BaseInvocation):
    """Encode a prompt for FLUX.2 klein."""

    prompt: str = InputField(description="The prompt", ui_component=UIComponent.Textarea)
    qwen3_encoder: Qwen3EncoderField = InputField(
        title="Qwen3 Encoder", description=FieldDescriptions.qwen3_encoder, input=Input.Connection
    )
    max_seq_len: Literal[256, 512] = InputField(default=512, description="Number of tokens of the prompt")
    mask: TensorField | None = InputField(
        default=None, description="Mask of the region that the prompt applies to; default: the whole image"
    )

    def invoke(self, context: InvocationContext) -> FluxConditioningOutput:
        """Encode the prompt."""
        from invokeclone.components.denoisers.loras import patch_loras
        from invokeclone.engine.conditioning import ConditioningFieldData
        from invokeclone.engine.loaded import device_of
        from invokeclone.families.flux2 import pipeline
        from invokeclone.families.flux2.lora_keys import QWEN3

        loaded = context.models.load(self.qwen3_encoder.text_encoder)
        with loaded as encoder, context.models.load(self.qwen3_encoder.tokenizer) as tokenizer:
            context.util.signal_progress("Running Qwen3 encoder")
            with patch_loras(context, self.qwen3_encoder.loras, encoder, QWEN3):
                device = device_of(loaded, encoder)
                info = pipeline.encode_klein(tokenizer, encoder, self.prompt, self.max_seq_len, device)
        name = context.conditioning.save(ConditioningFieldData(conditionings=[info]))
        return FluxConditioningOutput(conditioning=FluxConditioningField(conditioning_name=name, mask=self.mask))
