"""Prompts to embeddings: compel's language, long prompts, skipped layers, and how a prompt is read."""

from typing import Any

import pytest
import torch

from invokeclone.components.clip import encode

CPU = torch.device("cpu")


@pytest.fixture
def clip(sd1_parts: dict[str, Any]) -> tuple[Any, Any]:
    """Return the tokenizer and the text encoder."""
    return sd1_parts["tokenizer"], sd1_parts["text_encoder"]


@pytest.mark.parametrize("penultimate", [False, True])
def test_plain_prompts_match_compel(penultimate: bool, clip: tuple[Any, Any]):
    for prompt in ("", "a cat", "A Cat, sitting on a mat. It's 7 o'clock!"):
        with torch.inference_mode():
            short = encode.encode_prompt(*clip, prompt, CPU, penultimate=penultimate)
            by_compel = encode._encode_weighted(*clip, prompt, CPU, penultimate=penultimate)
        assert short.shape == (1, 77, 32)
        assert torch.allclose(short, by_compel, atol=1e-6)


def test_encoding_includes_the_final_norm(clip: tuple[Any, Any]):
    tokenizer, encoder = clip
    with torch.inference_mode():
        tokens = tokenizer("a cat", padding="max_length", return_tensors="pt")["input_ids"]
        expected = encoder.final_layer_norm(encoder(tokens, output_hidden_states=True).hidden_states[-1])
    assert torch.allclose(encode.encode_prompt(*clip, "a cat", CPU), expected, atol=1e-5)


def test_prompt_weighting_syntax(clip: tuple[Any, Any]):
    plain, weighted, lowered, swapped = (
        encode.encode_prompt(*clip, prompt, CPU)
        for prompt in ("a red cat", "a (red)1.5 cat", "a red-- cat", "a red cat.swap(dog)")
    )
    assert not torch.allclose(plain, weighted, atol=1e-4)
    assert not torch.allclose(plain, lowered, atol=1e-4)
    assert swapped.shape == plain.shape
    assert encode.encode_prompt(*clip, '("a cat", "a dog").and()', CPU).shape == (1, 154, 32)
    blended, cat, dog = (
        encode.encode_prompt(*clip, prompt, CPU)
        for prompt in ('("a cat", "a dog").blend(0.25, 0.75)', "a cat", "a dog")
    )
    assert torch.allclose(blended, 0.25 * cat + 0.75 * dog, atol=1e-5)


def test_long_prompts_are_split_into_chunks(clip: tuple[Any, Any]):
    embeds = encode.encode_prompt(*clip, "a very long prompt. " * 8, CPU)
    assert embeds.shape[1] > 77
    assert embeds.shape[1] % 77 == 0


@pytest.mark.parametrize("count", [1, 2, 50])
def test_skipped_layers(clip: tuple[Any, Any], count: int):
    tokenizer, encoder = clip
    layers = encoder.encoder.layers
    with torch.inference_mode():
        tokens = tokenizer("a cat", padding="max_length", return_tensors="pt")["input_ids"]
        states = encoder(tokens, output_hidden_states=True).hidden_states
        expected = encoder.final_layer_norm(states[-1 - min(count, 2)])  # one of the three layers always stays
    with encode.skip_layers(encoder, count):
        assert torch.allclose(encode.encode_prompt(*clip, "a cat", CPU), expected, atol=1e-5)
    assert encoder.encoder.layers is layers


def test_parsed_prompts_can_be_logged(clip: tuple[Any, Any]):
    tokenizer = clip[0]
    words = tokenizer.tokenize("red cat")
    plain, weighted, blended, swapped = (
        encode.tokenization(tokenizer, prompt).splitlines()
        for prompt in ("red cat", "a (red)1.5 cat", '("red", "cat").blend(0.5, 0.5)', "a red.swap(cat)")
    )
    assert plain == [
        f"{len(words)} tokens, 75 per chunk, of the prompt 'red cat'",
        f"1: {'|'.join(word.removesuffix('</w>') for word in words)}",
    ]
    assert [line.split(":")[0] for line in weighted[1:]] == ["1", "1.5", "1"]
    assert "".join(weighted[2].split(": ")[1].split("|")) == "red"
    for lines, parts in ((blended, ["red", "cat"]), (swapped, ["a", "red", "cat"])):
        assert ["".join(line.split(": ")[1].split("|")) for line in lines[1:]] == parts
    assert encode.tokenization(tokenizer, "").splitlines() == ["0 tokens, 75 per chunk, of the prompt ''"]


def test_invalid_prompt_syntax(clip: tuple[Any, Any]):
    for call in (lambda p: encode.tokenization(clip[0], p), lambda p: encode.encode_prompt(*clip, p, CPU)):
        with pytest.raises(ValueError, match=r"syntax error|cannot be parsed"):
            call('("a", "b").blend(1, 2, 3)')
