"""Nodes that generate text with a language model."""

from invokeclone.graph.context import CanceledException, InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import StringOutput
from invokeclone.graph.vocabulary.fields import InputField, SystemPromptField, UIComponent
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import Classification, ModelType, SubModelType

HIGHEST_SEED = 2**32 - 1
SYSTEM_PROMPT = (
    "You are an expert prompt writer for AI image generation. Given a brief description, expand it into a detailed, vivid "
    "prompt suitable for generating high-quality images. Only output the expanded prompt, nothing else."
)
"""Part of the published schema, so its text must not change."""


def _write(
    context: InvocationContext,
    identifier: ModelIdentifierField,
    prompt: str,
    system_prompt: str,
    max_tokens: int,
    seed: int,
) -> str:

    from invokeclone.components.language_models import pipeline

    loaded = context.models.load(identifier)
    tokenizer = context.models.load(identifier, SubModelType.Tokenizer)

    def on_tokens(count: int) -> None:
        if context.util.is_canceled():
            raise CanceledException
        context.util.signal_progress("Writing", count / max_tokens)

    with tokenizer as words, loaded as model:
        device = pipeline.device_of(loaded, model)
        return pipeline.write(
            model, words, prompt, system_prompt, max_tokens=max_tokens, seed=seed, device=device, on_tokens=on_tokens
        )


@invocation(
    "text_llm",
    title="Text LLM",
    tags=["llm", "text", "prompt"],
    category="llm",
    version="1.1.0",
    classification=Classification.Beta,
)
class TextLLMInvocation(BaseInvocation):
    """Generate text with a language model."""

    prompt: str = InputField(default="", description="Prompt of the language model", ui_component=UIComponent.Textarea)
    system_prompt: str = InputField(
        default=SYSTEM_PROMPT, description="System prompt of the language model", ui_component=UIComponent.Textarea
    )
    text_llm_model: ModelIdentifierField = InputField(
        title="Text LLM Model", description="The language model", ui_model_type=ModelType.TextLLM
    )
    max_tokens: int = InputField(default=300, ge=1, le=2048, description="Maximum number of tokens to generate")
    seed: int = InputField(
        default=0, ge=0, le=HIGHEST_SEED, description="Random seed; the same seed gives the same text"
    )

    def invoke(self, context: InvocationContext) -> StringOutput:
        """Return the generated text."""
        text = _write(context, self.text_llm_model, self.prompt, self.system_prompt, self.max_tokens, self.seed)
        return StringOutput(value=text)


@invocation(
    "text_llm_with_preset",
    title="Text LLM (with System Prompt Preset)",
    tags=["llm", "text", "prompt", "preset", "template"],
    category="llm",
    version="1.1.0",
    classification=Classification.Beta,
)
class TextLLMWithPresetInvocation(BaseInvocation):
    """Generate text with a language model and a saved system prompt."""

    prompt: str = InputField(default="", description="Prompt of the language model", ui_component=UIComponent.Textarea)
    system_prompt: SystemPromptField = InputField(description="The saved system prompt")
    text_llm_model: ModelIdentifierField = InputField(
        title="Text LLM Model", description="The language model", ui_model_type=ModelType.TextLLM
    )
    max_tokens: int = InputField(default=300, ge=1, le=2048, description="Maximum number of tokens to generate")
    seed: int = InputField(
        default=0, ge=0, le=HIGHEST_SEED, description="Random seed; the same seed gives the same text"
    )

    def invoke(self, context: InvocationContext) -> StringOutput:
        """Return the generated text."""
        system_prompt = context.presets.system_prompt(self.system_prompt.system_prompt_id)
        text = _write(context, self.text_llm_model, self.prompt, system_prompt, self.max_tokens, self.seed)
        return StringOutput(value=text)
