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
        from invokeclone.families.z_image.lora_keys import QWEN3

        loaded = context.models.load(self.qwen3_encoder.text_encoder)
        with loaded as text_encoder, context.models.load(self.qwen3_encoder.tokenizer) as tokenizer:
            context.util.signal_progress("Running Qwen3 text encoder")
            with patch_loras(context, self.qwen3_encoder.loras, text_encoder, QWEN3):
                info = pipeline.encode(tokenizer, text_encoder, self.prompt, device_of(loaded, text_encoder))
        name = context.conditioning.save(ConditioningFieldData([info]))
        return ZImageConditioningOutput(conditioning=ZImageConditioningField(conditioning_name=name, mask=self.mask))


@invocation(
    "z_image_seed_variance_enhancer",
    title="Seed Variance Enhancer - Z-Image",
    tags=["conditioning", "z-image", "variance", "seed"],
    category="prompt",
    version="1.0.0",
    classification=Classification.Prototype,
)
class ZImageSeedVarianceEnhancerInvocation(BaseInvocation):
    """Add noise to a prompt, so that images differ more from seed to seed."""

    conditioning: ZImageConditioningField = InputField(
        description=FieldDescriptions.cond, input=Input.Connection, title="Conditioning"
    )
    seed: int = InputField(default=0, ge=0, description="Seed of the noise; connect the image's seed")
    strength: float = InputField(
        default=0.1, ge=0.0, le=2.0, description="Strength of the noise, in standard deviations of the prompt's values"
    )
    randomize_percent: float = InputField(
        default=50.0, ge=1.0, le=100.0, description="Percentage of the prompt's values that change"
    )

    def invoke(self, context: InvocationContext) -> ZImageConditioningOutput:
        """Save a changed copy of the conditioning."""
        from invokeclone.engine.conditioning import ConditioningFieldData
        from invokeclone.families.z_image.conditioning import ZImageConditioningInfo
        from invokeclone.families.z_image.seed_variance import vary

        stored = context.conditioning.load(self.conditioning.conditioning_name)
        info = stored.single(ZImageConditioningInfo, "conditioning")
        embeds = vary(info.prompt_embeds, self.seed, self.strength, self.randomize_percent / 100.0)
        name = context.conditioning.save(ConditioningFieldData([ZImageConditioningInfo(embeds)]))
        return ZImageConditioningOutput(conditioning=self.conditioning.model_copy(update={"conditioning_name": name}))
