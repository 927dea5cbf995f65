"""GGUF headers: tensors and metadata. Only the header is read and checked against the file's length.

The quantization types are those of the gguf library; docs/decisions/0010 explains why its reader is not used.
"""

import math
import struct
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

from invokeclone.models.errors import InvalidModel
from invokeclone.models.files.tensors import Tensor

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_HEADER_BYTES = 50_000_000
_MAX_DIMENSIONS = 8
_MAX_VALUES = 2_000_000
"""Maximum number of metadata entries and strings in a header; vocabularies have up to 300 000."""
_MAX_TENSORS = 200_000
_ALIGNMENT = 32
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


@cache
def _types() -> dict[int, tuple[str, int, int]]:
    """Return (name, elements per block, bytes per block) by type; gguf is imported when the first file is read."""
    from gguf.constants import GGML_QUANT_SIZES

    return {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}


class _Range(NamedTuple):
    """Byte range of a tensor, relative to the end of the header."""

    begin: int
    end: int
    name: str


class StoredData(NamedTuple):
    """A tensor in a GGUF file."""

    kind: str
    """Name of its quantization type, such as `Q4_K`."""
    shape: tuple[int, ...]
    """In torch's order."""
    begin: int
    """Offset of its first byte in the file."""
    size: int
    """In bytes."""


class _Header:
    """Sequential reader of header values within the limits."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._remaining_bytes, self._remaining_values = file, _MAX_HEADER_BYTES, _MAX_VALUES
        self.ranges: list[_Range] = []

    @property
    def length(self) -> int:
        """The number of bytes read so far."""
        return _MAX_HEADER_BYTES - self._remaining_bytes

    def read_bytes(self, length: int) -> bytes:
        if length > self._remaining_bytes:
            raise InvalidModel("its header is too large")
        self._remaining_bytes -= length
        data = self._file.read(length)
        if len(data) < length:
            raise InvalidModel("it is truncated")
        return data

    def read_number(self, struct_format: str) -> Any:
        return struct.unpack(struct_format, self.read_bytes(struct.calcsize(struct_format)))[0]

    def read_text(self) -> str:
        return self.read_bytes(self.read_number("<Q")).decode("utf-8", "replace")

    def read_counts(self) -> tuple[int, int]:
        """Return the number of tensors and of metadata entries."""
        if self.read_bytes(4) != _MAGIC or self.read_number("<I") not in _VERSIONS:
            raise InvalidModel("its magic number or version is not supported")
        tensors, metadata_count = self.read_number("<Q"), self.read_number("<Q")
        if tensors > _MAX_TENSORS:
            raise InvalidModel("it declares too many tensors")
        self._count(metadata_count)
        return tensors, metadata_count

    def read_value(self, kind: int, *, with_lists: bool = False) -> Any:
        """Return a number, string or short list of numbers; other lists only `with_lists`, else None."""
        if kind == _STRING:
            return self.read_text()
        if kind in _NUMBERS:
            return self.read_number(_NUMBERS[kind])
        if kind != _ARRAY:
            raise InvalidModel(f"it has a value of unknown type {kind}")
        inner, length = self.read_number("<I"), self.read_number("<Q")
        if inner in _NUMBERS:
            data = self.read_bytes(length * struct.calcsize(_NUMBERS[inner]))
            is_kept = with_lists or length <= _MAX_DIMENSIONS
            return [value for (value,) in struct.iter_unpack(_NUMBERS[inner], data)] if is_kept else None
        if inner != _STRING:
            raise InvalidModel(f"it has a list of unknown type {inner}")
        self._count(length)
        texts = [self.read_text() for _ in range(length)] if with_lists else None
        for _ in range(0 if with_lists else length):
            self.read_text()
        return texts

    def read_tensors(self, count: int) -> dict[str, Tensor]:
        tensors = dict(self.read_tensor() for _ in range(count))
        if len(tensors) < count:
            raise InvalidModel("it has two tensors with the same name")
        return tensors

    def read_tensor(self) -> tuple[str, Tensor]:
        name = self.read_text()
        dimensions = self.read_number("<I")
        if dimensions > _MAX_DIMENSIONS:
            raise InvalidModel(f"tensor {name} has {dimensions} dimensions")
        shape = tuple(self.read_number("<Q") for _ in range(dimensions))
        kind, begin = self.read_number("<I"), self.read_number("<Q")
        self.ranges.append(_Range(begin, begin + _size(name, kind, shape), name))
        types = _types()
        return name, Tensor(types[kind][0] if kind in types else f"GGML{kind}", shape[::-1])

    def _count(self, values: int) -> None:
        self._remaining_values -= values
        if self._remaining_values < 0:
            raise InvalidModel("its header has too many values")


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a GGUF file, with shapes in torch's order, and its metadata (numbers, texts, short lists).

    Raises InvalidModel if the header is damaged, or tensors overlap or exceed the file.
    """
    tensors, metadata, _ = _read(path)
    return tensors, metadata


def locate(path: Path) -> tuple[dict[str, StoredData], dict[str, str]]:
    """Return where the tensors of a GGUF file are, and its metadata (numbers, texts, short lists). Raises InvalidModel as `read` does."""
    tensors, metadata, ranges = _read(path)
    stored = {
        name: StoredData(tensors[name].dtype, tensors[name].shape, begin, end - begin) for begin, end, name in ranges
    }
    return stored, metadata


def read_lists(path: Path, names: Collection[str]) -> dict[str, list[Any]]:
    """Return lists of a GGUF file's metadata, such as a vocabulary; names without a list are left out.

    Raises InvalidModel for a damaged header.
    """
    with path.open("rb") as file:
        header = _Header(file)
        _, metadata_count = header.read_counts()
        lists = {}
        for _ in range(metadata_count):
            name, kind = header.read_text(), header.read_number("<I")
            value = header.read_value(kind, with_lists=name in names)
            if name in names and isinstance(value, list):
                lists[name] = value
        return lists


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str], list[_Range]]:
    """Return tensors, metadata, and the byte ranges of the tensors in the file."""
    with path.open("rb") as file:
        header = _Header(file)
        try:
            tensors, metadata_count = header.read_counts()
            pairs = ((header.read_text(), header.read_value(header.read_number("<I"))) for _ in range(metadata_count))
            metadata = {name: value for name, value in pairs if value is not None}
            declared_tensors = header.read_tensors(tensors)
            alignment = _alignment(metadata)
            begin = -(-header.length // alignment) * alignment
            _check_ranges(header.ranges, path.stat().st_size - begin, alignment)
        except InvalidModel as error:
            raise InvalidModel(f"{path.name} is not a GGUF file, or is damaged: {error}") from error
    ranges = [_Range(begin + first, begin + end, name) for first, end, name in header.ranges]
    return declared_tensors, {name: str(value) for name, value in metadata.items()}, ranges


def _size(name: str, kind: int, shape: tuple[int, ...]) -> int:
    """Return the size of a tensor in bytes; for an unknown type, a lower bound."""
    elements = math.prod(shape)
    if kind not in _types():
        return elements // 8
    _, block, size = _types()[kind]
    if shape and shape[0] % block:
        raise InvalidModel(
            f"tensor {name} has rows of {shape[0]} elements, which is not a multiple of the block size {block}"
        )
    return elements // block * size


def _alignment(metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= 2**20 or alignment & (alignment - 1):
        raise InvalidModel(f"its alignment is {alignment}, which is not a power of two")
    return alignment


def _check_ranges(ranges: list[_Range], size: int, alignment: int) -> None:
    """Raise InvalidModel unless the tensors are aligned, within `size` bytes and do not overlap."""
    end, last_name = 0, ""
    for begin, tensor_end, name in sorted(ranges):
        if begin % alignment:
            raise InvalidModel(f"tensor {name} does not start at a multiple of {alignment}")
        if begin < end:
            raise InvalidModel(f"the tensors {last_name} and {name} overlap")
        if tensor_end > size:
            raise InvalidModel(
                f"it is truncated: tensor {name} ends {tensor_end - size} bytes after the end of the file"
            )
        end, last_name = tensor_end, name
