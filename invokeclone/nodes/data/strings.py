"""Putting strings together and taking them apart."""

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

    positive_string: str = OutputField(description="What stood outside of brackets")
    negative_string: str = OutputField(description="What stood inside of brackets")


@invocation_output("string_2_output")
class String2Output(BaseInvocationOutput):
    """Two strings."""

    string_1: str = OutputField(description="The first string")
    string_2: str = OutputField(description="The second string")


def split_negative(prompt: str) -> tuple[str, str]:
    """Part a prompt into what stands outside of [brackets] and what stands inside; a backslash keeps a bracket."""
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
    """Part a prompt into positive and negative: [brackets] hold the negative."""

    string: str = InputField(default="", description="The prompt", ui_component=UIComponent.Textarea)

    def invoke(self, context: InvocationContext) -> StringPosNegOutput:
        """Give out both prompts."""
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
    """Part a string where a delimiter first stands."""

    string: str = InputField(default="", description="The string", ui_component=UIComponent.Textarea)
    delimiter: str = InputField(default="", description="Where to part; not empty")

    def invoke(self, context: InvocationContext) -> String2Output:
        """Give out what stands before and after the delimiter."""
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
    """Put two strings together."""

    string_left: str = InputField(default="", description="The first string", ui_component=UIComponent.Textarea)
    string_right: str = InputField(default="", description="The second string", ui_component=UIComponent.Textarea)

    def invoke(self, context: InvocationContext) -> StringOutput:
        """Give out both strings as one."""
        return StringOutput(value=self.string_left + self.string_right)


@invocation(
    "string_join_three",
    title="String Join Three",
    tags=["string", "join"],
    category="strings",
    version="1.0.1",
)
class StringJoinThreeInvocation(BaseInvocation):
    """Put three strings together."""

    string_left: str = InputField(default="", description="The first string", ui_component=UIComponent.Textarea)
    string_middle: str = InputField(default="", description="The second string", ui_component=UIComponent.Textarea)
    string_right: str = InputField(default="", description="The third string", ui_component=UIComponent.Textarea)

    def invoke(self, context: InvocationContext) -> StringOutput:
        """Give out all strings as one."""
        return StringOutput(value=self.string_left + self.string_middle + self.string_right)


@invocation(
    "string_replace",
    title="String Replace",
    tags=["string", "replace", "regex"],
    category="strings",
    version="1.0.1",
)
class StringReplaceInvocation(BaseInvocation):
    """Replace every occurrence of a text: upper and lower case alike, or a regular expression."""

    string: str = InputField(default="", description="The string to work on", ui_component=UIComponent.Textarea)
    search_string: str = InputField(default="", description="What to replace", ui_component=UIComponent.Textarea)
    replace_string: str = InputField(
        default="", description="What to put in its place", ui_component=UIComponent.Textarea
    )
    use_regex: bool = InputField(default=False, description="Whether the search is a regular expression")

    def invoke(self, context: InvocationContext) -> StringOutput:
        """Give out the changed string. Raises Unprocessable when it grows over the limit of a node's output."""
        if not self.search_string:
            return StringOutput(value=self.string)
        remaining = context.config.get().limits.node_output_mib * MIB

        def replace_match(match: re.Match[str]) -> str:
            nonlocal remaining
            replacement = match.expand(self.replace_string) if self.use_regex else self.replace_string
            remaining -= len(replacement)
            if remaining < 0:
                raise Unprocessable("the string grows over the limit of an output (setting limits.node_output_mib)")
            return replacement

        pattern = (
            re.compile(self.search_string)
            if self.use_regex
            else re.compile(re.escape(self.search_string), re.IGNORECASE)
        )
        return StringOutput(value=pattern.sub(replace_match, self.string))
