"""Decoding JSON from clients: rejects values that cannot be stored, counted or returned, for every route.

The text is checked before it is parsed, with a few passes over its bytes at memory speed.
"""

import codecs
import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import orjson

from invokeclone.kit.config.limits import Limits
from invokeclone.kit.errors import TooLarge, Unprocessable

SLICE_SIZE = 64 * 1024
"""Size in bytes from which parsing is split into slices, so that a thread releases the interpreter in between."""

ORJSON_MIN_SIZE = 4 * 1024 * 1024
"""Size in bytes from which orjson parses: four times as fast, but without releasing the interpreter."""

SMALLEST, LARGEST = -(2**63), 2**64 - 1
"""The range of signed and unsigned 64-bit integers; seeds of ComfyUI clients use all unsigned ones."""

_SURROGATES = re.compile(rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|[89a-fA-F])")
_PAIR = 12
"""Bytes of an escaped surrogate pair: a shorter match of the pattern is a lone surrogate."""

_LONG_NUMBER = re.compile(rb"-?[0-9]{19,}[0-9.eE+-]*|-?[0-9.]+[eE][+-]?[0-9]{3,}")
_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_MANY_DIGITS = b"0" * 19
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_MAX_DIGITS = 400


class NotStorable(Unprocessable):
    """JSON with a value that cannot be stored in a column or file or returned in a response."""


def decode(data: bytes, limits: Limits, *, text_kib: int | None = None) -> Any:
    """Return the value of a JSON text; `text_kib` limits each string in it.

    Raises NotStorable, TooLarge, or json.JSONDecodeError for invalid JSON.
    """
    _check(data, limits, text_kib)
    if len(data) < ORJSON_MIN_SIZE:
        hook = dict if len(data) < SLICE_SIZE else _build_object
        return json.loads(_utf8(data), parse_constant=_refuse, object_pairs_hook=hook)
    try:
        return orjson.loads(data.removeprefix(codecs.BOM_UTF8))
    except orjson.JSONDecodeError:
        return json.loads(_utf8(data), parse_constant=_refuse)  # gives the same error message as for shorter texts


def decode_text(text: str, limits: Limits) -> Any:
    """Return the value of JSON that is already decoded to str: a form field, or metadata in a file.

    Raises as `decode`.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise _lone_surrogate_error("a text") from error
    return decode(data, limits)


def check_text(text: str, what: str = "a text") -> str:
    """Return `text` if it is storable. Raises NotStorable."""
    if "\0" in text:
        raise NotStorable(f"{what} contains a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _lone_surrogate_error(what) from error
    return text


def _lone_surrogate_error(what: str) -> NotStorable:
    return NotStorable(f"{what} is not valid Unicode: it contains a lone surrogate")


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a dict in a Python function, so that other threads can run between two objects."""
    return dict(pairs)


def _refuse(word: str) -> NoReturn:
    raise NotStorable(f"{word} is not a JSON number")


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotStorable(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error


def _check(data: bytes, limits: Limits, text_kib: int | None) -> None:
    """Check a JSON text by its bytes: strings without their escaped quotes, and the text between strings."""
    if b"\\" in data:
        data = b"".join(map(_without_quotes, _whole_escapes(data)))
        if rb"\u0000" in data:
            raise NotStorable("a text contains a NUL character")
        _check_surrogates(data)
    between = _between_texts(data, None if text_kib is None or len(data) <= text_kib * 1024 else text_kib)
    digits = between.translate(_DIGITS)
    if _MANY_DIGITS in digits or b"0e" in digits or b".e" in digits:
        _check_numbers(between)
    _check_structure(between, limits)


def _whole_escapes(data: bytes) -> Iterator[bytes]:
    """Yield slices that end between escapes."""
    start = 0
    while start < len(data):
        part = data[start : start + SLICE_SIZE]
        if (len(part) - len(part.rstrip(b"\\"))) % 2:
            part = data[start : start + SLICE_SIZE + 1]
        yield part
        start += len(part)


def _without_quotes(data: bytes) -> bytes:
    """Remove the escaped quotes and backslashes."""
    return data.replace(rb"\\", b"").replace(rb"\"", b"")


def _check_surrogates(data: bytes) -> None:
    """Raise NotStorable for a lone surrogate, searching one slice at a time with an overlap of one pair."""
    start = 0
    while start < len(data):
        end = start + SLICE_SIZE
        for match in _SURROGATES.finditer(data, start, end + _PAIR - 1):
            if match.start() >= end:
                break
            if match.end() - match.start() != _PAIR:
                raise _lone_surrogate_error("a text")
            end = max(end, match.end())
        start = end


def _between_texts(data: bytes, text_kib: int | None) -> bytes:
    """Return the text between the strings, split one slice at a time. Raises TooLarge for a string over `text_kib`."""
    pieces = []
    inside = length = 0
    for start in range(0, len(data), SLICE_SIZE):
        parts = data[start : start + SLICE_SIZE].split(b'"')
        pieces += parts[inside::2]
        if text_kib is not None:
            texts = parts[1 - inside :: 2]
            length = _open_text(
                texts, length if inside else 0, text_kib, ends_inside=(inside + len(parts) - 1) % 2 == 1
            )
        inside = (inside + len(parts) - 1) % 2
    return b"".join(pieces)


def _open_text(texts: list[bytes], before: int, text_kib: int, *, ends_inside: bool) -> int:
    """Return the length so far of the string that is open at the end of the slice.

    `before` is that of the first one.
    """
    lengths = list(map(len, texts))
    if lengths:
        lengths[0] += before
    if max(lengths, default=0) > text_kib * 1024:
        raise TooLarge(f"a text is over {text_kib} KiB (setting limits.text_kib)")
    return lengths[-1] if lengths and ends_inside else 0


def _check_numbers(between: bytes) -> None:
    for match in _LONG_NUMBER.finditer(between):
        number = match[0].decode()
        if len(number) > _MAX_DIGITS:
            raise NotStorable(f"a number has more than {_MAX_DIGITS} digits")
        try:
            storable = math.isfinite(float(number)) if set(number) & set(".eE") else SMALLEST <= int(number) <= LARGEST
        except ValueError:
            continue  # not a JSON number: the parser reports it
        if not storable:
            raise NotStorable(f"{number[:40]} does not fit into 64 bits")


def _check_structure(between: bytes, limits: Limits) -> None:
    openings = between.count(b"[") + between.count(b"{")
    if openings + between.count(b",") > limits.json_values:
        raise TooLarge(f"the body has more than {limits.json_values} values (setting limits.json_values)")
    if openings <= limits.json_depth:
        return
    brackets = between.translate(_BRACKETS, _NOT_BRACKETS)
    for _ in range(limits.json_depth):
        brackets, before = brackets.replace(b"[]", b""), brackets
        if brackets == before:
            return  # done, or unbalanced: the parser reports it
    if brackets:
        raise NotStorable(
            f"objects and lists are nested more than {limits.json_depth} levels deep (setting limits.json_depth)"
        )
