"""The prompt nodes of FLUX.2."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

from invokeclone.components.flux.fields import FluxConditioningField, FluxConditioningOutput
from invokeclone.components.text_encoders.fields import MistralEncoderField, Qwen3EncoderField
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, Classification, invocation
from invokeclone.graph.vocabulary.fields import FieldDescriptions, Input, InputField, TensorField, UIComponent

if TYPE_CHECKING:
    from invokeclone.families.flux2.conditioning import Flux2ConditioningInfo


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
        from invokeclone.families.flux2 import pipeline

        encode = partial(pipeline.encode_klein, prompt=self.prompt, tokens=self.max_seq_len)
        return _encode(context, self.qwen3_encoder, encode, self.mask, "Running Qwen3 encoder")


@invocation(
    "flux2_dev_text_encoder",
    title="Prompt - FLUX.2 [dev]",
    tags=["prompt", "conditioning", "flux", "flux2", "dev", "mistral"],
    category="prompt",
    version="1.0.1",
    classification=Classification.Prototype,
)
class Flux2DevTextEncoderInvocation(BaseInvocation):
    """Encode a prompt for FLUX.2 dev."""

    prompt: str = InputField(description="The prompt", ui_component=UIComponent.Textarea)
    mistral_encoder: MistralEncoderField = InputField(
        title="Mistral Encoder", description=FieldDescriptions.mistral_encoder, input=Input.Connection
    )
    max_seq_len: Literal[256, 512] = InputField(default=512, description="Number of tokens of the prompt")
    mask: TensorField | None = InputField(
        default=None, description="Mask of the region that the prompt applies to; default: the whole image"
    )

    def invoke(self, context: InvocationContext) -> FluxConditioningOutput:
        """Encode the prompt."""
        from invokeclone.families.flux2 import pipeline

        encode = partial(pipeline.encode_dev, prompt=self.prompt, tokens=self.max_seq_len)
        return _encode(context, self.mistral_encoder, encode, self.mask, "Running Mistral encoder")


def _encode(
    context: InvocationContext,
    field: Qwen3EncoderField | MistralEncoderField,
    encode: "Callable[..., Flux2ConditioningInfo]",
    mask: TensorField | None,
    progress: str,
) -> FluxConditioningOutput:
    """Encode with a text encoder and its LoRAs, and save the conditioning."""
    from invokeclone.components.denoisers.loras import patch_loras
    from invokeclone.engine.conditioning import ConditioningFieldData
    from invokeclone.engine.loaded import device_of
    from invokeclone.families.flux2.lora_keys import TEXT_ENCODER

    loaded = context.models.load(field.text_encoder)
    with loaded as encoder, context.models.load(field.tokenizer) as tokenizer:
        context.util.signal_progress(progress)
        with patch_loras(context, field.loras, encoder, TEXT_ENCODER):
            info = encode(tokenizer, encoder, device=device_of(loaded, encoder))
    name = context.conditioning.save(ConditioningFieldData(conditionings=[info]))
    return FluxConditioningOutput(conditioning=FluxConditioningField(conditioning_name=name, mask=mask))
