"""Nodes that generate prompts from patterns and files."""

from collections.abc import Iterable
from itertools import islice

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import StringCollectionOutput
from invokeclone.graph.vocabulary.fields import InputField, UIComponent
from invokeclone.kit.config.limits import check_prompt
from invokeclone.kit.errors import Unprocessable


@invocation(
    "dynamic_prompt",
    title="Dynamic Prompt",
    tags=["prompt", "collection"],
    category="prompt",
    version="1.0.1",
    use_cache=False,
)
class DynamicPromptInvocation(BaseInvocation):
    """Generate prompts from a pattern with {choices|to|make}."""

    prompt: str = InputField(description="The pattern", ui_component=UIComponent.Textarea)
    max_prompts: int = InputField(default=1, description="Maximum number of prompts")
    combinatorial: bool = InputField(
        default=False, description="Whether to generate all combinations in order instead of random ones"
    )

    def invoke(self, context: InvocationContext) -> StringCollectionOutput:
        """Return the prompts. Raises Unprocessable for a pattern or a number of prompts over its limit."""
        from dynamicprompts.generators import CombinatorialPromptGenerator, RandomPromptGenerator

        generator = CombinatorialPromptGenerator() if self.combinatorial else RandomPromptGenerator()
        limits = context.config.get().limits
        check_prompt(self.prompt, limits, "the pattern")
        if self.max_prompts > limits.dynamic_prompts:
            raise Unprocessable(
                f"max_prompts {self.max_prompts} exceeds the limit of {limits.dynamic_prompts} (setting limits.dynamic_prompts)"
            )
        prompts = list(generator.generate(self.prompt, self.max_prompts))
        return StringCollectionOutput(collection=prompts or [""])


def read_prompts(file: Iterable[str], start_line: int, max_prompts: int) -> list[str]:
    """Return lines of a text file, stripped, from the 1-based `start_line`; `max_prompts` 0 reads to the end."""
    stop = start_line - 1 + max_prompts if max_prompts else None
    return [line.strip() for line in islice(file, start_line - 1, stop)]


@invocation(
    "prompt_from_file",
    title="Prompts from File",
    tags=["prompt", "file"],
    category="prompt",
    version="1.0.2",
)
class PromptsFromFileInvocation(BaseInvocation):
    """Read prompts from a text file on the server, one per line."""

    file_path: str = InputField(description="Path of the file")
    pre_prompt: str | None = InputField(
        default=None, description="Text to add before every prompt", ui_component=UIComponent.Textarea
    )
    post_prompt: str | None = InputField(
        default=None, description="Text to add after every prompt", ui_component=UIComponent.Textarea
    )
    start_line: int = InputField(default=1, ge=1, description="First line to read, starting at 1")
    max_prompts: int = InputField(default=1, ge=0, description="Number of lines to read; 0 means all")

    def invoke(self, context: InvocationContext) -> StringCollectionOutput:
        """Return the prompts. Raises the errors of `open_text` for files that the user may not read."""
        before, after = self.pre_prompt or "", self.post_prompt or ""
        limits = context.config.get().limits
        check_prompt(before + after, limits, "the text around the prompts")
        with context.config.open_text(self.file_path) as file:
            lines = read_prompts(file, self.start_line, self.max_prompts)
        if len(lines) > limits.batch_values:
            raise Unprocessable(
                f"{self.file_path} has more than {limits.batch_values} prompts (setting limits.batch_values): set max_prompts to read a part of it"
            )
        return StringCollectionOutput(collection=[f"{before}{line}{after}" for line in lines])
