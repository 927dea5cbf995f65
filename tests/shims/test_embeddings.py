"""Names of textual inversions in prompts, as AUTOMATIC1111 and ComfyUI read them."""

from types import SimpleNamespace
from typing import Any

import pytest

from invokeclone.shims import embeddings


def embedding(name: str, base: str = "sd-1") -> Any:
    return SimpleNamespace(name=name, key=f"key-of-{len(name)}", base=base)


TRIGGERS = embeddings.triggers(
    [embedding("EasyNegative"), embedding("bad-hands-5"), embedding("bad"), embedding("a(b)"), embedding("xl", "sdxl")],
    "sd-1",
)


def test_triggers_belong_to_the_base_and_fall_back_to_keys() -> None:
    assert TRIGGERS == {
        "easynegative": "<EasyNegative>",
        "bad-hands-5": "<bad-hands-5>",
        "bad": "<bad>",
        "a(b)": "<key-of-4>",
    }


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("easynegative, blurry", "<EasyNegative>, blurry"),
        ("(EasyNegative:1.2)", "(<EasyNegative>:1.2)"),
        ("bad-hands-5 bad, badly, not-bad", "<bad-hands-5> <bad>, badly, not-bad"),
        ("<bad> <bad-hands-5>", "<bad> <bad-hands-5>"),
        ("xl", "xl"),
        ("a(b)", "<key-of-4>"),
    ],
)
def test_trigger_words_are_replaced(prompt: str, expected: str) -> None:
    assert embeddings.replace_words(prompt, TRIGGERS) == expected
    assert embeddings.replace_words(prompt, {}) == prompt


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("embedding:easynegative, blurry", "<EasyNegative>, blurry"),
        ("(embedding:bad-hands-5.safetensors:1.2)", "(<bad-hands-5>:1.2)"),
        ("Embedding:bad.pt", "<bad>"),
        ("easynegative", "easynegative"),
        ("embedding:nothing.pt", "embedding:nothing.pt"),
        ("embedding:xl", "embedding:xl"),
    ],
)
def test_trigger_prefixes_are_replaced(prompt: str, expected: str) -> None:
    assert embeddings.replace_prefixed(prompt, TRIGGERS) == expected
