"""Z-Image's nodes for prompts."""

from invokeclone.components.text_encoders.fields import Qwen3EncoderField
from invokeclone.families.z_image.fields import ZImageConditioningField, ZImageConditioningOutput
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.vocabulary.fields import FieldDescriptions, Input, InputField, TensorField, UIComponent
from invokeclone.graph.vocabulary.taxonomy import Classification


@invocation(
    "z_image_text_encoder",
    title="Prompt - Z-Image",
    tags=["prompt", "conditioning", "z-image"],
    category="prompt",
    version="1.1.0",
    classification=Classification.Prototype,
)
class ZImageTextEncoderInvocation(BaseInvocation):
    """Encode a prompt for Z-Image; it has no prompt language."""

    prompt: str = InputField(description="The prompt", ui_component=UIComponent.Textarea)
    qwen3_encoder: Qwen3EncoderField = InputField(
        description=FieldDescriptions.qwen3_encoder, input=Input.Connection, title="Qwen3 Encoder"
    )
    mask: TensorField | None = InputField(
        default=None, description="Mask of the region that the prompt applies to; default: the whole image"
    )

    def invoke(self, context: InvocationContext) -> ZImageConditioningOutput:
        """Encode the prompt."""
        from invokeclone.components.denoisers.loras import patch_loras
        from invokeclone.engine.conditioning import ConditioningFieldData
        from invokeclone.engine.loaded import device_of
        from invokeclone.families.z_image import pipeline

        loaded = context.models.load(self.qwen3_encoder.text_encoder)
        with loaded as text_encoder, context.models.load(self.qwen3_encoder.tokenizer) as tokenizer:
            context.util.signal_progress("Running Qwen3 text encoder")
            with patch_loras(context, self.qwen3_encoder.loras, text_encoder, "qwen3"):
                info = pipeline.encode(tokenizer, text_encoder, self.prompt, device_of(loaded, text_encoder))
        name = context.conditioning.save(ConditioningFieldData([info]))
        return ZImageConditioningOutput(conditioning=ZImageConditioningField(conditioning_name=name, mask=self.mask))
