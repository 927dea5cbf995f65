"""Bounds on setting values beyond their types: every accepted value is usable by the server and storable in the file.

The published schema, which is InvokeAI's, does not include these bounds.
"""

import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel

LARGEST = 2**63 - 1
"""The largest integer of SQLite and of 64-bit C counters."""

NUMBERS: dict[str, tuple[float, float]] = {
    "port": (0, 65_535),
    "pil_compress_level": (0, 9),
    "node_cache_size": (0, 10_000_000),
    "max_queue_size": (1, 100_000_000),
    "max_queue_history": (0, LARGEST),
    "max_pending_items_per_user": (0, 100_000_000),
    "max_images_per_user_per_day": (0, 100_000_000),
    "device_working_mem_gb": (0, 1_000_000),
    "max_cache_ram_gb": (0, 1_000_000),
    "max_cache_vram_gb": (0, 1_000_000),
    "model_cache_keep_alive_min": (0, 10_000_000),
}
OTHER_NUMBERS = (-LARGEST, LARGEST)
LONGEST_TEXT = 10_000
LONGEST_PATH = 4_000
LONGEST_NAME = 255
"""Maximum bytes of one path component on common file systems."""

MAX_ENTRIES = 1_000


def check(name: str, value: Any) -> Any:
    """Return the value of a setting. Raises ValueError for a value that is not usable or not storable."""
    match value:
        case bool() | None:
            pass
        case int() | float():
            _check_number(name, value)
        case Path():
            _check_path(value)
        case str():
            _check_text(value)
        case BaseModel():
            for entry in dict(value).values():
                check(name, entry)
        case list():
            if len(value) > MAX_ENTRIES:
                raise ValueError(f"has more than {MAX_ENTRIES} entries")
            for entry in value:
                check(name, entry)
    return value


def _check_number(name: str, value: float) -> None:
    minimum, maximum = NUMBERS.get(name, OTHER_NUMBERS)
    if not math.isfinite(value) or not minimum <= value <= maximum:
        raise ValueError(f"must be from {minimum:g} to {maximum:g}")


def _check_text(value: str) -> None:
    if len(value) > LONGEST_TEXT:
        raise ValueError(f"is longer than {LONGEST_TEXT} characters")
    if not value.isprintable():
        raise ValueError("contains a non-printable character")


def _check_path(value: Path) -> None:
    text = str(value)
    _check_text(text)
    if len(text.encode()) > LONGEST_PATH or any(len(part.encode()) > LONGEST_NAME for part in value.parts):
        raise ValueError("is too long for a path")
