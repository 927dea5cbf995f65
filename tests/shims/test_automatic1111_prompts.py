"""AUTOMATIC1111's prompt language: weights by numbers, what is refused, and that compel reads the same."""

import time

import pytest
from compel.prompt_parser import PromptParser
from hypothesis import given, settings
from hypothesis import strategies as st

from invokeclone.families.stable_diffusion import prompt_language
from invokeclone.queue.generation import LoRAChoice
from invokeclone.shims.automatic1111.prompts import MAX_NESTING, extract_loras, parse
from invokeclone.shims.compat_api import RequestRejected


def compel(prompt: str) -> str:
    """Return a prompt of A1111's in compel's language."""
    return prompt_language.write(parse(prompt))


def weights(prompt: str) -> list[tuple[str, float]]:
    """Return the pieces of a prompt of one chunk, without blanks around them."""
    (chunk,) = parse(prompt).chunks
    return [(text, round(piece.weight, 4)) for piece in chunk if (text := piece.text.strip())]


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("(a)", [("a", 1.1)]),
        ("((a))", [("a", 1.21)]),
        ("[a]", [("a", 0.9091)]),
        ("[[a]]", [("a", 0.8264)]),
        ("([a])", [("a", 1.0)]),
        ("(a:1.3) b", [("a", 1.3), ("b", 1.0)]),
        ("(a : 1.3 )", [("a", 1.3)]),
        ("(a:.5)", [("a", 0.5)]),
        ("(a:0)", [("a", 0.0)]),
        ("(a (b:2) c:0.5)", [("a", 0.5), ("b", 1.0), ("c", 0.5)]),
        ("a (big (red:1.5) dog)", [("a", 1.0), ("big", 1.1), ("red", 1.65), ("dog", 1.1)]),
        ("a (b", [("a", 1.0), ("b", 1.1)]),
        ("a [b", [("a", 1.0), ("b", 0.9091)]),
        ("a) b]", [("a) b]", 1.0)]),
        (r"a \(b\) \[c\]", [("a (b) [c]", 1.0)]),
        (r"(a\):1.2)", [("a)", 1.2)]),
        (r"a\\(b)", [("a\\", 1.0), ("b", 1.1)]),
        ("a: b", [("a: b", 1.0)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("[a: b]", [("a: b", 0.9091)]),
        ("a:1.2)", [("a:1.2)", 1.0)]),
        ("foo(bar)baz", [("foo", 1.0), ("bar", 1.1), ("baz", 1.0)]),
        ("()", []),
        ("", []),
        ("a|b", [("a|b", 1.0)]),
        ("<3 x <b:c>", [("<3 x <b:c>", 1.0)]),
    ],
)
def test_brackets_set_weights(prompt: str, pieces: list[tuple[str, float]]) -> None:
    assert weights(prompt) == pieces


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("a <lora:thing:0.8>", "<lora:thing:0.8>"),
        ("a <lyco:thing:1:2>", "<lyco:thing:1:2>"),
        ("a <hypernet:thing:1>", "<hypernet:thing:1>"),
        ("a cat AND a dog", "AND"),
        ("[a:b:0.5]", "[from:to:when]"),
        ("[a:10]", "[from:to:when]"),
        ("[a::3]", "[from:to:when]"),
        ("[(a:1.2):b:.5]", "[from:to:when]"),
        ("[a|b]", "[a|b]"),
        ("(a:-1)", "below 0"),
        ("(" * (MAX_NESTING + 1) + "a", "nested"),
    ],
)
def test_unsupported_prompt_syntax_is_refused_by_name(prompt: str, named: str) -> None:
    with pytest.raises(RequestRejected) as refused:
        parse(prompt, "negative_prompt")
    assert named in str(refused.value)
    assert refused.value.param == "negative_prompt"


def test_and_and_break_inside_words_are_literal() -> None:
    assert compel("SAND and BREAKFAST") == "SAND and BREAKFAST"


def test_break_starts_a_new_chunk() -> None:
    assert [[piece.text.strip() for piece in chunk] for chunk in parse("a cat BREAK a dog BREAK x").chunks] == [
        ["a cat"],
        ["a dog"],
        ["x"],
    ]
    read_back = PromptParser().parse_conjunction(compel('a "big" cat, x BREAK a (dog:1.2)'))
    assert read_back.weights == [1.0, 1.0]
    assert [[(part.text, part.weight) for part in prompt.children] for prompt in read_back.prompts] == [
        [('a "big" cat , x', 1.0)],
        [("a", 1.0), ("dog", 1.2)],
    ]


def letters(pieces: list[tuple[str, float]]) -> list[tuple[str, float | None]]:
    """Return every sign and its weight; blanks don't count, and signs that compel cannot weigh have none."""
    return [
        (sign, None if sign in "=+-.," else round(weight, 3))
        for text, weight in pieces
        for sign in text
        if not sign.isspace()
    ]


@settings(deadline=None)
@given(st.text(alphabet="abc ()[]:\\12.,+-=\"'!?é|", max_size=30))
def test_compel_parses_the_translated_prompt_with_equal_weights(prompt: str) -> None:
    """Whatever is not refused comes out of compel's own parser with the same signs and weights, in the same order."""
    try:
        chunks = parse(prompt).chunks
    except RequestRejected:
        return
    expected = [letters([(piece.text, piece.weight) for piece in chunk]) for chunk in chunks]
    parsed = PromptParser().parse_conjunction(compel(prompt))
    got = [letters([(part.text, part.weight) for part in prompt_part.children]) for prompt_part in parsed.prompts]
    assert (got or [[]]) == expected


@pytest.mark.parametrize(
    ("network", "weight", "text_weight"),
    [
        ("<lora:thing>", 1.0, None),
        ("<lora:thing:0.8>", 0.8, None),
        ("<LORA: thing :.8>", 0.8, None),
        ("<lyco:thing:1:2>", 2.0, 1.0),
        ("<lora:thing:0.5:0.5>", 0.5, None),
        ("<lora:thing:-1>", -1.0, None),
        ("<lora:thing:unet=0.5:te=0.7>", 0.5, 0.7),
        ("<lora:thing:te=0.7>", 0.7, None),
        ("<lora:thing:0.7:dyn=4>", 0.7, None),
        ("<lora:thing:0.7:0.6:4>", 0.6, 0.7),
    ],
)
def test_loras_are_taken_out_of_the_prompt(network: str, weight: float, text_weight: float | None) -> None:
    rest, choices = extract_loras(f"a {network}cat")
    assert rest == "a cat"
    assert choices == [LoRAChoice(model="thing", weight=weight, text_weight=text_weight)]


@pytest.mark.parametrize(
    ("network", "named"),
    [
        ("<hypernet:thing:1>", "hypernetworks"),
        ("<lora:thing:much>", "number"),
        ("<lora:thing:1000>", "10"),
        ("<lora:thing:nan>", "10"),
    ],
)
def test_invalid_lora_is_refused(network: str, named: str) -> None:
    with pytest.raises(RequestRejected) as refused:
        extract_loras(network)
    assert network in str(refused.value)
    assert named in str(refused.value)


def test_unclosed_networks_are_searched_in_linear_time() -> None:
    """Each was followed to the prompt's end: 18 s at 100,000 characters."""
    took = []
    for number in (2_000, 20_000):
        started = time.process_time()
        parse("<lora:a:" * number)
        took.append(time.process_time() - started)
    assert took[1] < 40 * took[0] + 0.1, "ten times as many take a hundred times as long"
