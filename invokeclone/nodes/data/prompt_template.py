"""The node that inserts prompts into a style preset."""

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.graph.vocabulary.fields import InputField, OutputField, StylePresetField, UIComponent
from invokeclone.kit.config.limits import MIB
from invokeclone.kit.errors import Unprocessable

PLACEHOLDER = "{prompt}"


@invocation_output("prompt_template_output")
class PromptTemplateOutput(BaseInvocationOutput):
    """A positive and a negative prompt."""

    positive_prompt: str = OutputField(description="The positive prompt")
    negative_prompt: str = OutputField(description="The negative prompt")


@invocation(
    "prompt_template",
    title="Prompt Template",
    tags=["prompt", "template", "style", "preset"],
    category="prompt",
    version="1.0.0",
)
class PromptTemplateInvocation(BaseInvocation):
    """Insert prompts for {prompt} in a style preset."""

    style_preset: StylePresetField = InputField(description="The style preset")
    positive_prompt: str = InputField(default="", description="The positive prompt", ui_component=UIComponent.Textarea)
    negative_prompt: str = InputField(default="", description="The negative prompt", ui_component=UIComponent.Textarea)

    def invoke(self, context: InvocationContext) -> PromptTemplateOutput:
        """Return the two prompts. Raises Unprocessable when one exceeds the size limit of an output."""
        preset = context.presets.style_preset(self.style_preset.style_preset_id)
        limit = context.config.get().limits.node_output_mib * MIB
        return PromptTemplateOutput(
            positive_prompt=_fill_template(preset.positive_prompt, self.positive_prompt, limit),
            negative_prompt=_fill_template(preset.negative_prompt, self.negative_prompt, limit),
        )


def _fill_template(template: str, prompt: str, limit: int) -> str:
    if template.count(PLACEHOLDER) * len(prompt) > limit:
        raise Unprocessable("the prompt exceeds the size limit of a node output (setting limits.node_output_mib)")
    return template.replace(PLACEHOLDER, prompt)
