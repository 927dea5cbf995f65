"""ComfyUI's prompt language, and what compel reads of it."""

import pytest
from compel.prompt_parser import PromptParser

from invokeclone.families.stable_diffusion import prompt_language
from invokeclone.graph.prompts import Prompt
from invokeclone.shims.comfyui.prompt_parser import MAX_DEPTH, parse


def compel(prompt: str) -> str:
    """Return a prompt of ComfyUI's in compel's language."""
    return prompt_language.write(Prompt.from_segments(parse(prompt)))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red circle", "a red circle"),
        ("a (red:1.2) circle", "a (red)1.2 circle"),
        ("(a) ((b))", "(a)1.1 (b)1.21"),
        (r"\(smile\)", r"\(smile\)"),
        ("unclosed (a b", r"unclosed \(a b"),
        ("a:1.2)", r"a:1.2\)"),
        ("(:1.2)", ""),
        ("(x:-3)", "(x)0"),
        ("(a:1.0)", "a"),
        ('"x" c++', r"\"x\" c ++"),
        ("(c++:1.2)", "(c)1.2 ++"),
        ('("a", "b").blend(1:2)', r"(\"a\", \"b\")1.1 . blend (1)2"),
    ],
)
def test_round_brackets_set_weights(prompt: str, expected: str) -> None:
    assert compel(prompt) == expected


def test_square_brackets_are_literal() -> None:
    assert compel("a [b]") == "a [b]"


def test_explicit_weights_are_absolute() -> None:
    assert compel("(a (b:1.5):1.1)") == "(a)1.1 (b)1.5"
    assert compel("((a):2)") == "(a)2.2"


def test_many_brackets_are_parsed_within_time_and_depth_limits() -> None:
    assert "".join(piece.text for piece in parse("(" * 100_000 + ")" * 100_000)).count("(") == 100_000 - MAX_DEPTH
    assert parse("(x" * 3000 + ")" * 3000)
    assert len(parse("a (b:1.2) " * 100_000)) == 200_001


def test_compel_reads_the_weights() -> None:
    text = compel("a (red:1.25) and (big) dog")
    fragments = PromptParser().parse_conjunction(text).prompts[0].children
    assert [(fragment.text, fragment.weight) for fragment in fragments] == [
        ("a", 1.0),
        ("red", 1.25),
        ("and", 1.0),
        ("big", 1.1),
        ("dog", 1.0),
    ]
