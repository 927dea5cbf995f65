"""Safetensors headers: tensors and metadata. Only the header is read and checked against the file's length."""

import json
import math
import struct
from pathlib import Path
from typing import Any, TypeGuard

from invokeclone.models.errors import InvalidModel
from invokeclone.models.files.tensors import Tensor

MAX_HEADER_BYTES = 20_000_000
"""Maximum header size in bytes; the format allows five times as many, the largest models have about 1 000 000."""
MAX_TENSORS = 200_000
_MAX_DIMENSIONS = 16
_LENGTH = struct.Struct("<Q")
_METADATA_KEY = "__metadata__"
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


class _InvalidHeader(ValueError):
    """The header is damaged; the message gives the reason."""


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file. Blocking.

    Raises InvalidModel if the file is truncated or of another kind (such as a web page or a Git LFS pointer), or if
    names, shapes and offsets do not describe the file exactly.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
        if not 0 < length <= min(size - _LENGTH.size, MAX_HEADER_BYTES):
            raise InvalidModel(f"{path.name} is not a safetensors file, or is truncated: {_guess_cause(start)}")
        text = file.read(length)
    try:
        entries = _parse(text)
        metadata = entries.pop(_METADATA_KEY, None)
        ranges = sorted(_range(name, entry) for name, entry in entries.items())
    except _InvalidHeader as error:
        raise InvalidModel(f"{path.name} has a damaged safetensors header: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{path.name} has a damaged safetensors header") from error
    _check_ranges(path, ranges, size - _LENGTH.size - length)
    tensors = {name: Tensor(entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()}
    return tensors, {name: str(value) for name, value in metadata.items()} if isinstance(metadata, dict) else {}


def _parse(text: bytes) -> dict[str, Any]:
    entries = json.loads(text, object_pairs_hook=_without_duplicates)
    if not isinstance(entries, dict):
        raise _InvalidHeader("it is not an object")
    return entries


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_TENSORS:
        raise _InvalidHeader("it declares too many tensors")
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise _InvalidHeader("it has a duplicate name")
    return entries


def _range(name: str, entry: Any) -> tuple[int, int, str]:
    """Return (begin, end, name) of a tensor's bytes, checked against its shape and dtype."""
    if not isinstance(entry, dict):
        raise _InvalidHeader(f"the entry {name} is not an object")
    shape, offsets, dtype = entry.get("shape"), entry.get("data_offsets"), entry.get("dtype")
    if not isinstance(dtype, str) or not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:  # noqa: PLR2004
        raise _InvalidHeader(f"{name} has no valid dtype, shape or offsets")
    if dtype in _BITS and (offsets[1] - offsets[0]) * 8 != math.prod(shape) * _BITS[dtype]:
        raise _InvalidHeader(
            f"{name} has {offsets[1] - offsets[0]} bytes, which does not match {dtype} of shape {shape}"
        )
    if offsets[1] < offsets[0]:
        raise _InvalidHeader(f"{name} ends before it begins")
    return offsets[0], offsets[1], name


def _check_ranges(path: Path, ranges: list[tuple[int, int, str]], size: int) -> None:
    """Raise InvalidModel unless the tensors are contiguous from the end of the header to the end of the file."""
    end = 0
    for begin, tensor_end, name in ranges:
        if begin != end:
            problem = "overlaps another tensor" if begin < end else "has a gap before it"
            raise InvalidModel(f"{path.name} has a damaged safetensors header: {name} {problem}")
        end = tensor_end
    if end > size:
        raise InvalidModel(f"{path.name} is truncated: {end - size} bytes of its tensors are missing")
    if end < size:
        raise InvalidModel(f"{path.name} has {size - end} bytes that belong to no tensor: download it again")


def _are_counts(value: Any) -> TypeGuard[list[int]]:
    if not isinstance(value, list) or len(value) > _MAX_DIMENSIONS:
        return False
    return all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**62 for item in value)


def _guess_cause(start: bytes) -> str:
    if start[:1] == b"<":
        return "it looks like a web page"
    if start.startswith(b"version "):
        return "it looks like a Git LFS pointer; download the real file"
    return "its header cannot be read"
