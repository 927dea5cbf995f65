"""JSON of clients: what is refused, and that all else is read as it is."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invokeclone.kit.config.limits import Limits
from invokeclone.kit.errors import TooLarge
from invokeclone.kit.json_text import ORJSON_MIN_SIZE, SLICE_SIZE, NotStorable, check_text, decode

LIMITS = Limits(json_values=1000, json_depth=50)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), inner, max_size=5),
    max_leaves=30,
)  # fmt: skip


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(VALUES, st.booleans())
def test_storable_json_is_read_unchanged(value: Any, ascii_only: bool) -> None:
    assert decode(json.dumps(value, ensure_ascii=ascii_only).encode(), LIMITS) == value


@pytest.mark.parametrize(
    "text",
    [
        r'"\ud800"', r'{"\udc00": 1}', r'"\ud800\ud800\udc00"', r'"\ud83d\ude00\ude00"', r'"a\\\ud800"', r'"\"\udfff"',
        r'"\u0000"', r'["a\\\u0000"]', "NaN", "[Infinity]", '{"a": -Infinity}', "1e999", "[-1e400]", "1" + "0" * 400 + ".5",
        str(2**64), str(-(2**63) - 1), '{"a": ' + "9" * 5000 + "}", '"\xff"', "[" * 51 + "]" * 51, '{"a":' * 51 + "1" + "}" * 51,
        "[{},[],[[" + "[" * 48 + "]" * 48 + "]]]",
    ],
)  # fmt: skip
def test_unstorable_json_is_refused(text: str) -> None:
    with pytest.raises(NotStorable):
        decode(text.encode("latin-1"), LIMITS)


@pytest.mark.parametrize(
    "text",
    [
        r'"\\ud800"', r'"\\\\u0000"', r'"\ud83d\ude00"', '"[[[[[[[[NaN Infinity 1e999"', f'"{"9" * 50}"', str(2**64 - 1),
        "1" * 40 + ".5", "1e-999", "[" * 50 + "]" * 50, '"' + "[" * 500 + '"', "[" + "[]," * 400 + "[]]",
    ],
)  # fmt: skip
def test_json_resembling_unstorable_values_is_read(text: str) -> None:
    assert decode(text.encode(), LIMITS) == json.loads(text)


@pytest.mark.parametrize("text", ["", "{", "[1,]", '{"a" 1}', "[" * 40, "]" * 60 + "[" * 60, '"\n"', "01"])
def test_invalid_json_raises_json_decode_error(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        decode(text.encode(), LIMITS)


def test_values_and_texts_are_counted() -> None:
    with pytest.raises(TooLarge, match="json_values"):
        decode(b"[" + b"{}," * 1000 + b"1]", LIMITS)
    assert len(decode(b'["' + b"," * 5000 + b'"]', LIMITS)[0]) == 5000
    with pytest.raises(TooLarge, match="text_kib"):
        decode(json.dumps({"a": "x" * 1025}).encode(), LIMITS, text_kib=1)
    assert decode(json.dumps({"a": "x" * 1024}).encode(), LIMITS, text_kib=1)


def test_a_large_body_is_read_like_a_small_one() -> None:
    value = {"texts": [{"a": "x" * 1000}] * (SLICE_SIZE // 900)}
    assert decode(json.dumps(value).encode(), LIMITS) == value


@pytest.mark.parametrize("before", range(SLICE_SIZE - 14, SLICE_SIZE + 3))
def test_escapes_are_not_split_between_slices(before: int) -> None:
    start = '"' + "x" * (before - 1)
    for text in (r"\ud83d\ude00", r"\\\\\"", r"\\ud800", r"\\\"[[[[", r"\u00e9"):
        whole = f'{start}{text}"'
        assert decode(whole.encode(), LIMITS) == json.loads(whole)
    for text in (r"\ud83d", r"\ud83dx", r"\ude00", r"\ud83d\ud83d\ude00", r"\u0000", r"\ud83d\ude00\ude00"):
        with pytest.raises(NotStorable):
            decode(f'{start}{text}"'.encode(), LIMITS)


def test_the_longest_bodies_are_read_like_others() -> None:
    """Another parser reads them: the same values, and the same words for what is wrong."""
    text = "x" * ORJSON_MIN_SIZE
    value = {"a": text, "b": 1e300, "c": -(2**63), "d": 2**64 - 1, "e": [True, None, 1.5, "\U0001f600"]}
    assert decode(b"\xef\xbb\xbf" + json.dumps(value).encode(), LIMITS) == value
    with pytest.raises(json.JSONDecodeError, match="Expecting ',' delimiter"):
        decode(json.dumps([text]).encode()[:-1] + b"}", LIMITS)
    with pytest.raises(NotStorable, match="not UTF-8"):
        decode(b'"' + text.encode() + b'\xff"', LIMITS)
    with pytest.raises(NotStorable, match="NaN"):
        decode(b'["' + text.encode() + b'", NaN]', LIMITS)


def test_check_text() -> None:
    assert check_text("\U0001f600") == "\U0001f600"
    for text in ("\0", "\ud800"):
        with pytest.raises(NotStorable):
            check_text(text)
