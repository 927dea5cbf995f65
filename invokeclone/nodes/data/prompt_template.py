"""A prompt put into a style preset."""

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.fields import InputField, OutputField, StylePresetField, UIComponent
from invokeclone.graph.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output

PLACEHOLDER = "{prompt}"


@invocation_output("prompt_template_output")
class PromptTemplateOutput(BaseInvocationOutput):
    """The two prompts."""

    positive_prompt: str = OutputField(description="What is wanted")
    negative_prompt: str = OutputField(description="What is not wanted")


@invocation(
    "prompt_template",
    title="Prompt Template",
    tags=["prompt", "template", "style", "preset"],
    category="prompt",
    version="1.0.0",
)
class PromptTemplateInvocation(BaseInvocation):
    """Put prompts where a style preset has {prompt}."""

    style_preset: StylePresetField = InputField(description="The style preset")
    positive_prompt: str = InputField(default="", description="What is wanted", ui_component=UIComponent.Textarea)
    negative_prompt: str = InputField(default="", description="What is not wanted", ui_component=UIComponent.Textarea)

    def invoke(self, context: InvocationContext) -> PromptTemplateOutput:
        """Give out the two prompts."""
        preset = context.presets.style_preset(self.style_preset.style_preset_id)
        return PromptTemplateOutput(
            positive_prompt=preset.positive_prompt.replace(PLACEHOLDER, self.positive_prompt),
            negative_prompt=preset.negative_prompt.replace(PLACEHOLDER, self.negative_prompt),
        )
