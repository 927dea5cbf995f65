"""Which model a name means."""

from types import SimpleNamespace
from typing import Any

import pytest

from invokeclone.models.records.matching import find_by_name


def record(key: str, name: str, path: str = "/some/where", base: str = "sd-1", digits: str = "") -> Any:
    return SimpleNamespace(key=key, name=name, path=path, base=base, hash=f"blake3:{digits or key * 12}")


KNOWN = [
    record("a", "Style", "loras/My Style.v2.safetensors"),
    record("b", "style", base="sdxl"),
    record("c", "face", r"C:\models\Face Detail.safetensors", digits="0123456789abcdef"),
    record("d", "a"),
]


@pytest.mark.parametrize(
    ("name", "base", "key"),
    [
        ("a", None, "a"),
        ("Style", None, "a"),
        ("style", None, "b"),
        (" style ", None, "b"),
        ("STYLE", None, "a"),
        ("STYLE", "sdxl", "b"),
        ("my style.v2", None, "a"),
        ("My Style.v2.safetensors", None, "a"),
        ("loras/my style.V2.safetensors", None, "a"),
        ("face detail", None, "c"),
        ("0123456789", None, "c"),
        ("0123456789ABCDEF", None, "c"),
        ("012345678", None, None),
        ("", None, None),
        ("nothing", None, None),
    ],
)
def test_exact_keys_and_names_win_over_similar_names(name: str, base: str | None, key: str | None) -> None:
    match = find_by_name(KNOWN, name, base)
    assert (match.key if match else None) == key


def test_a_model_of_another_base_matches_if_it_is_the_only_one() -> None:
    assert find_by_name(KNOWN, "face", "sdxl") is KNOWN[2]
