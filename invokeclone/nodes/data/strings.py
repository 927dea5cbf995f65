"""Nodes that join, split and change strings."""

import re

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.graph.invocations.outputs import StringOutput
from invokeclone.graph.vocabulary.fields import InputField, OutputField, UIComponent
from invokeclone.kit.config.limits import MIB
from invokeclone.kit.errors import Unprocessable


@invocation_output("string_pos_neg_output")
class StringPosNegOutput(BaseInvocationOutput):
    """A positive and a negative prompt."""

    positive_string: str = OutputField(description="The text outside brackets")
    negative_string: str = OutputField(description="The text inside brackets")


@invocation_output("string_2_output")
class String2Output(BaseInvocationOutput):
    """Two strings."""

    string_1: str = OutputField(description="The first string")
    string_2: str = OutputField(description="The second string")


def split_negative(prompt: str) -> tuple[str, str]:
    """Split a prompt into the text outside [brackets] and the text inside; a backslash escapes a bracket."""
    outside, inside = "", ""
    depth = 0
    escaped = False
    for character in prompt:
        if character == "[" and not escaped:
            inside += " "
            depth += 1
        elif character == "]" and not escaped:
            depth = max(0, depth - 1)
        elif depth:
            inside += character
        else:
            outside += character
        escaped = character == "\\" and not escaped
    return outside, inside


@invocation(
    "string_split_neg",
    title="String Split Negative",
    tags=["string", "split", "negative"],
    category="strings",
    version="1.0.1",
)
class StringSplitNegInvocation(BaseInvocation):
    """Split a prompt into positive and negative: [brackets] contain the negative prompt."""

    string: str = InputField(default="", description="The prompt", ui_component=UIComponent.Textarea)

    def invoke(self, context: InvocationContext) -> StringPosNegOutput:
        """Return both prompts."""
        positive, negative = split_negative(self.string)
        return StringPosNegOutput(positive_string=positive, negative_string=negative)


@invocation(
    "string_split",
    title="String Split",
    tags=["string", "split"],
    category="strings",
    version="1.0.1",
)
class StringSplitInvocation(BaseInvocation):
    """Split a string at the first occurrence of a delimiter."""

    string: str = InputField(default="", description="The string", ui_component=UIComponent.Textarea)
    delimiter: str = InputField(default="", description="The delimiter; must not be empty")

    def invoke(self, context: InvocationContext) -> String2Output:
        """Return the text before and after the delimiter."""
        first, *rest = self.string.split(self.delimiter, 1)
        return String2Output(string_1=first, string_2=rest[0] if rest else "")


@invocation(
    "string_join",
    title="String Join",
    tags=["string", "join"],
    category="strings",
    version="1.0.1",
)
class StringJoinInvocation(BaseInvocation):
    """Join two strings."""

    string_left: str = InputField(default="", description="The first string", ui_component=UIComponent.Textarea)
    string_right: str = InputField(default="", description="The second string", ui_component=UIComponent.Textarea)

    def invoke(self, context: InvocationContext) -> StringOutput:
        """Return the joined string."""
        return StringOutput(value=self.string_left + self.string_right)


@invocation(
    "string_join_three",
    title="String Join Three",
    tags=["string", "join"],
    category="strings",
    version="1.0.1",
)
class StringJoinThreeInvocation(BaseInvocation):
    """Join three strings."""

    string_left: str = InputField(default="", description="The first string", ui_component=UIComponent.Textarea)
    string_middle: str = InputField(default="", description="The second string", ui_component=UIComponent.Textarea)
    string_right: str = InputField(default="", description="The third string", ui_component=UIComponent.Textarea)

    def invoke(self, context: InvocationContext) -> StringOutput:
        """Return the joined string."""
        return StringOutput(value=self.string_left + self.string_middle + self.string_right)


@invocation(
    "string_replace",
    title="String Replace",
    tags=["string", "replace", "regex"],
    category="strings",
    version="1.0.1",
)
class StringReplaceInvocation(BaseInvocation):
    """Replace every occurrence of a text (case-insensitive) or of a regular expression."""

    string: str = InputField(default="", description="The string to change", ui_component=UIComponent.Textarea)
    search_string: str = InputField(
        default="", description="The text or regular expression to replace", ui_component=UIComponent.Textarea
    )
    replace_string: str = InputField(default="", description="The replacement", ui_component=UIComponent.Textarea)
    use_regex: bool = InputField(default=False, description="Whether the search string is a regular expression")

    def invoke(self, context: InvocationContext) -> StringOutput:
        """Return the changed string. Raises Unprocessable when it exceeds the size limit of a node's output."""
        if not self.search_string:
            return StringOutput(value=self.string)
        remaining = context.config.get().limits.node_output_mib * MIB

        def replace_match(match: re.Match[str]) -> str:
            nonlocal remaining
            replacement = match.expand(self.replace_string) if self.use_regex else self.replace_string
            remaining -= len(replacement)
            if remaining < 0:
                raise Unprocessable(
                    "the string exceeds the size limit of a node output (setting limits.node_output_mib)"
                )
            return replacement

        pattern = (
            re.compile(self.search_string)
            if self.use_regex
            else re.compile(re.escape(self.search_string), re.IGNORECASE)
        )
        return StringOutput(value=pattern.sub(replace_match, self.string))
