"""A prompt put into a style preset."""

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.graph.vocabulary.fields import InputField, OutputField, StylePresetField, UIComponent
from invokeclone.kit.config.limits import MIB
from invokeclone.kit.errors import Unprocessable

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
        """Give out the two prompts. Raises Unprocessable when one grows over the limit of an output."""
        preset = context.presets.style_preset(self.style_preset.style_preset_id)
        limit = context.config.get().limits.node_output_mib * MIB
        return PromptTemplateOutput(
            positive_prompt=_fill_template(preset.positive_prompt, self.positive_prompt, limit),
            negative_prompt=_fill_template(preset.negative_prompt, self.negative_prompt, limit),
        )


def _fill_template(template: str, prompt: str, limit: int) -> str:
    if template.count(PLACEHOLDER) * len(prompt) > limit:
        raise Unprocessable("the prompt grows over the limit of an output (setting limits.node_output_mib)")
    return template.replace(PLACEHOLDER, prompt)
