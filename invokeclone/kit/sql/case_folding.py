"""Case-insensitive comparison in every script; SQLite's own `lower` and LIKE fold ASCII only."""

import re
from functools import lru_cache
from typing import Any

_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


def fold(text: Any) -> str | None:
    """Return a text folded for comparison: the SQL function `casefold`."""
    return text.casefold() if isinstance(text, str) else None


def casefold_like(text: Any, pattern: Any) -> bool | None:
    """Return whether a text, or JSON with escaped letters, matches a LIKE pattern: the SQL function `folded_like`."""
    if not isinstance(text, str) or not isinstance(pattern, str):
        return None
    return _compile(pattern)(_unescape(text).casefold()) is not None


def _unescape(text: str) -> str:
    if "\\u" not in text:
        return text
    letters = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    return letters.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@lru_cache(64)
def _compile(pattern: str) -> Any:
    parts = {"%": ".*", "_": "."}
    text = "".join(parts.get(letter) or re.escape(letter) for letter in pattern.casefold())
    return re.compile(text, re.DOTALL).fullmatch
