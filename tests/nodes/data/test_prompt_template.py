"""The prompt_template node, and the face that it asks."""

from types import SimpleNamespace
from typing import Any

import pytest

from invokeclone.graph.invocations.invocation import MissingInputException
from invokeclone.graph.vocabulary.fields import StylePresetField
from invokeclone.kit.errors import Unprocessable
from invokeclone.nodes.data.prompt_template import PromptTemplateInvocation
from tests.fakes_context import FakeContext


def apply_template(positive: str, negative: str, preset: tuple[str, str]) -> tuple[str, str]:
    preset_ids: list[str] = []

    def style_preset(preset_id: str) -> Any:
        preset_ids.append(preset_id)
        return SimpleNamespace(positive_prompt=preset[0], negative_prompt=preset[1])

    node = PromptTemplateInvocation(
        id="n", style_preset=StylePresetField(style_preset_id="p"), positive_prompt=positive, negative_prompt=negative
    )
    output = node.invoke_checked(FakeContext(presets=SimpleNamespace(style_preset=style_preset)))
    assert preset_ids == ["p"]
    return output.positive_prompt, output.negative_prompt


def test_prompts_replace_the_placeholder_of_the_preset() -> None:
    assert apply_template("a cat", "blur", ("photo of {prompt}, {prompt}!", "{prompt}, noise")) == (
        "photo of a cat, a cat!",
        "blur, noise",
    )


def test_preset_without_a_placeholder_replaces_the_prompt() -> None:
    assert apply_template("a cat", "", ("photo", "")) == ("photo", "")


def test_braces_in_a_prompt_are_plain_text() -> None:
    assert apply_template("{prompt} {0} \\1", "", ("<{prompt}>", "")) == ("<{prompt} {0} \\1>", "")


def test_repeated_placeholders_stop_at_the_length_limit() -> None:
    with pytest.raises(Unprocessable, match=r"limits\.node_output_mib"):
        apply_template("x" * 100_000, "", ("{prompt}" * 1000, ""))


def test_running_without_a_preset_is_an_error() -> None:
    with pytest.raises(MissingInputException):
        PromptTemplateInvocation(id="n").invoke_checked(FakeContext())
