"""The prompt language: what compel's own parser makes of the same prompts, every text has a meaning, and linear work."""

import random
import sys
from typing import Any

import compel
import pyparsing
import pytest
import torch
from compel import ReturnedEmbeddingsType
from compel.prompt_parser import Blend as CompelBlend
from compel.prompt_parser import CrossAttentionControlSubstitute, PromptParser
from hypothesis import given, settings
from hypothesis import strategies as st

from invokeclone.components.clip import encode, prompt_language
from invokeclone.components.clip.prompt_language import parse
from invokeclone.components.clip.prompt_nodes import Blend, Fragment, PromptSyntaxError, Swap

CPU = torch.device("cpu")
ATOMS = [
    "cat", "red dog", "a", "(", ")", "(", ")", '"', '"', "+", "-", "++", "--", "1.2", "0.5", "-1", ".5", "3", ".swap(",
    ".attend(", ".blend(", ".and()", ".blend()", ",", ",", ". ", ".", " ", "  ", "\n", "\\(", "\\)", '\\"', "=",
    "withLora(x", "withLora(x)", "useLora(y,0.5)", "no_normalize", "<ti>", "[", "]", "{", "|", "é", "猫", ":", "s_start=0.1",
]  # fmt: skip
ENDS = ["", "1,2", "0.5, 0.5", "1,1,no_normalize", "a=1,2", "1"]


def generated_prompts(count: int) -> list[str]:
    """Return prompts of random pieces of the language, some of them in lists with an operator."""
    dice = random.Random(3)
    prompts = []
    for _ in range(count):
        text = "".join(dice.choice(ATOMS) for _ in range(dice.randint(1, 12)))
        if dice.random() < 0.3:
            others = dice.choice(["b", "(x y)1.2", '"q"'])
            text = f'("{text}", {others}).{dice.choice(["and", "blend", "add"])}({dice.choice(ENDS)})'
        prompts.append(text)
    return prompts


def described(item: Any) -> Any:
    """Return a fragment or swap of either parser as plain data."""
    if isinstance(item, CrossAttentionControlSubstitute | Swap):
        return [described(part) for part in item.original], [described(part) for part in item.edited]
    return item.text, pytest.approx(item.weight)


def by_compel(prompt: str) -> Any:
    conjunction = PARSER.parse_conjunction(prompt)
    parts = [
        (
            [[described(item) for item in child.children] for child in part.prompts],
            list(part.weights),
            part.normalize_weights,
        )
        if isinstance(part, CompelBlend)
        else [described(item) for item in part.children]
        for part in conjunction.prompts
    ]
    return parts, list(conjunction.weights)


def by_us(prompt: str) -> Any:
    conjunction = parse(prompt)
    parts = [
        ([[described(item) for item in child] for child in part.prompts], list(part.weights), part.normalize)
        if isinstance(part, Blend)
        else [described(item) for item in part]
        for part in conjunction.parts
    ]
    return parts, list(conjunction.weights)


PARSER = PromptParser()


@pytest.fixture
def clip(sd1_parts: dict[str, Any]) -> tuple[Any, Any]:
    """Return the tokenizer and the text encoder."""
    return sd1_parts["tokenizer"], sd1_parts["text_encoder"]


def compare(prompts: list[str]) -> int:
    """Compare the two parsers; return how many prompts both could read."""
    read = 0
    for prompt in prompts:
        if prompt.count("(") > 5:  # takes compel too long
            continue
        try:
            expected = by_compel(prompt)
        except (pyparsing.ParseException, PromptParser.ParsingException, ValueError):
            with pytest.raises(PromptSyntaxError):
                parse(prompt)
            continue
        if expected != ([], []):
            assert by_us(prompt) == expected, prompt
            read += 1
    return read


def test_prompts_are_read_as_compel_reads_them() -> None:
    assert compare(generated_prompts(40)) > 20


@pytest.mark.slow
def test_many_prompts_are_read_as_compel_reads_them() -> None:
    assert compare(generated_prompts(3000)) > 1500


@pytest.mark.parametrize("prompt", ["", " ", "()", "(())", "()+", "()0.5", "withLora(x)", "useLora(a,0.5) withLora(b)", '""', '("","").and()', "((),()).blend()"])  # fmt: skip
def test_prompts_without_text_are_empty_prompts(prompt: str, clip: tuple[Any, Any]) -> None:
    expected = encode.encode_prompt(*clip, "", CPU)
    embeds = encode.encode_prompt(*clip, prompt, CPU)
    assert torch.allclose(embeds[:, :77], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ('("a", "b").blend(1, -1)', "add up to 0"),
        ('("a", "b").blend(1, 2, 3)', "3 weights for 2 prompts"),
        ('("a", "b").and(x)', "takes numbers"),
        ('("a", "b").blend(1, 1) c', "nothing may follow"),
        ('("a.swap(b)", "b").blend(1, 1)', "inside of .blend"),
        ("(a)1001", "weights are at most 1000"),
        ("a" + "+" * 5000, "weights are at most 1000"),
        ("(" * 150 + "a" + ")" * 150, "100 levels"),
        ("(" * 5000, "100 levels"),
    ],
)
def test_what_cannot_be_read_is_explained(prompt: str, problem: str) -> None:
    with pytest.raises(PromptSyntaxError, match=problem) as error:
        parse(prompt)
    assert len(str(error.value)) < 300


def test_parentheses_around_a_quotation_count_in_it() -> None:
    def nested(count: int) -> str:
        return "(" * count + '"' + "(" * count + "a" + ")" * count + '"' + ")" * count

    assert parse(nested(40)) == parse("a")
    for prompt in (nested(99), "x.swap(" * 99 + '"' + "x.swap(" * 99 + "a" + ")" * 99 + '"' + ")" * 99):
        with pytest.raises(PromptSyntaxError, match="levels of parentheses"):
            parse(prompt)


def test_nesting_multiplies_weights() -> None:
    assert parse("a ((red)1.5 (dog)2)2").parts == ((Fragment("a"), Fragment("red", 3.0), Fragment("dog", 4.0)),)
    assert parse("(" * 100 + "a" + ")" * 100).parts == ((Fragment("a"),),)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(ATOMS) | st.text(max_size=4), max_size=40).map("".join))
def test_every_text_is_a_prompt_or_is_refused_with_a_sentence(prompt: str) -> None:
    try:
        conjunction = parse(prompt)
    except PromptSyntaxError as error:
        assert "the prompt" in str(error)  # noqa: PT017  (either outcome is right)
    else:
        assert conjunction.parts
        assert len(conjunction.parts) == len(conjunction.weights)


def test_odd_prompts_are_encoded(clip: tuple[Any, Any]) -> None:
    texts = ["<|endoftext|>", "a <|startoftext|> (b)0.5", "(<|endoftext|>)0.5 c", "\x00", "🦊" * 40, "(a.)0.3 (,)0.2 ()-", "\u200d(é)-", "[a|b] {c|d} <x> __w__"]  # fmt: skip
    for prompt in [*texts, *generated_prompts(40)]:
        try:
            embeds = encode.encode_prompt(*clip, prompt, CPU)
        except PromptSyntaxError:
            continue
        assert embeds.shape[1] % 77 == 0
        assert torch.isfinite(embeds).all(), prompt


@pytest.mark.parametrize("penultimate", [False, True])
def test_embeddings_are_those_of_compel(penultimate: bool, clip: tuple[Any, Any]) -> None:
    kinds = ReturnedEmbeddingsType
    tokenizer, encoder = clip
    reference = compel.Compel(
        tokenizer=tokenizer,
        text_encoder=encoder,
        truncate_long_prompts=False,
        device="cpu",
        returned_embeddings_type=kinds.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
        if penultimate
        else kinds.LAST_HIDDEN_STATES_NORMALIZED,
    )
    long = "a red fox. in the snow, with (trees)1.3 and (a house)0.6 " * 5
    for prompt in (
        "a (red)1.5 cat", "a red-- cat--", "(a)0.2 (b)0.7 c+++", "a cat.swap(dog) (x)0.5", '("a cat", "a dog").and(1, 0.4)',
        '("a cat", "a (dog)0.4").blend(0.2, 0.9)', f'("{"a cat sits. " * 25}", "b").blend(1, 2, no_normalize)', long,
        "supercalifragilistic " * 15, "a" * 150, "(a fox in the snow " + "x " * 100 + ")0.5",
    ):  # fmt: skip
        with torch.inference_mode():
            expected = reference(prompt)
            ours = encode._encode_weighted(*clip, prompt, CPU, penultimate=penultimate)
        assert ours.shape == expected.shape, prompt
        assert torch.allclose(ours, expected, atol=2e-5), prompt


def calls_of(prompt: str) -> int:
    """Return the number of function calls that parsing takes, of Python and of C functions."""
    count = 0

    def note(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        parse(prompt)
    except PromptSyntaxError:
        pass
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("piece", [
    "red cat, ", "(red cat)1.2 ", "cat+ ", '" ', '"a = b" ', "( ", "((a) ", "((((((((a)))))))) ", "(a, (b, (c=) ) ) ", "a.swap( ", "a.swap(b, ",
    "(a, ", '("a", ', "withLora(x) ", "withLora(x ", "(a)0.5 ", "\\( ", "\\", "-", "= ", ". ", "a", '\\" "',
])  # fmt: skip
def test_the_work_grows_in_proportion_to_the_length(piece: str) -> None:
    short, long = (calls_of(piece * count) for count in (100, 400))
    assert long < 5 * short + 100
    assert long < 60 * 400 * len(piece)


def test_a_long_prompt_is_tokenized_once(clip: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens converted to text while a prompt is split, and chunks encoded, are in proportion to its length."""
    tokenizer, encoder = clip
    converted: list[int] = []
    original = type(tokenizer).convert_ids_to_tokens

    def convert(self: Any, ids: Any) -> Any:
        converted.append(len(ids))
        return original(self, ids)

    monkeypatch.setattr(type(tokenizer), "convert_ids_to_tokens", convert)
    encoded = []
    hook = encoder.register_forward_hook(lambda *_: encoded.append(1))
    prompt = "(red)0.5 cat, " * 100
    try:
        embeds = encode.encode_prompt(tokenizer, encoder, prompt, CPU)
    finally:
        hook.remove()
    chunks = embeds.shape[1] // 77
    assert chunks > 5
    assert sum(converted) <= 75 * chunks
    assert len(encoded) <= 2 * chunks + 100


def test_excerpts_are_short() -> None:
    with pytest.raises(PromptSyntaxError) as error:
        parse("word " * 5000 + "(" * 200)
    assert len(str(error.value)) < 300
    assert prompt_language.MAX_NESTING == 100
