"""What tensors and facts a GGUF file declares; only its header is read, and checked against the file's length.

The number types are the gguf library's. Its reader is not used: docs/decisions/0010.
"""

import math
import struct
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
"""Texts and numbers that a header may have; vocabularies have up to 300 000."""
_MAX_TENSORS = 200_000
_ALIGNMENT = 32
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


@cache
def _types() -> dict[int, tuple[str, int, int]]:
    """Return name, elements of a block and bytes of a block for each number type; imported when a file is first read."""
    from gguf.constants import GGML_QUANT_SIZES

    return {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}


class _Range(NamedTuple):
    """Where a tensor's bytes lie behind the header."""

    begin: int
    end: int
    name: str


class _Header:
    """Reads values one after the other and never beyond the limits."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._remaining_bytes, self._remaining_values = file, _MAX_HEADER_BYTES, _MAX_VALUES
        self.ranges: list[_Range] = []

    @property
    def length(self) -> int:
        """The bytes read so far."""
        return _MAX_HEADER_BYTES - self._remaining_bytes

    def read_bytes(self, length: int) -> bytes:
        if length > self._remaining_bytes:
            raise InvalidModel("a GGUF header larger than any model's")
        self._remaining_bytes -= length
        data = self._file.read(length)
        if len(data) < length:
            raise InvalidModel("it is cut off")
        return data

    def read_number(self, struct_format: str) -> Any:
        return struct.unpack(struct_format, self.read_bytes(struct.calcsize(struct_format)))[0]

    def read_text(self) -> str:
        return self.read_bytes(self.read_number("<Q")).decode("utf-8", "replace")

    def read_counts(self) -> tuple[int, int]:
        """Return how many tensors and facts there are."""
        if self.read_bytes(4) != _MAGIC or self.read_number("<I") not in _VERSIONS:
            raise InvalidModel("it does not begin as one does")
        tensors, metadata_count = self.read_number("<Q"), self.read_number("<Q")
        if tensors > _MAX_TENSORS:
            raise InvalidModel("it declares more tensors than any model has")
        self._count(metadata_count)
        return tensors, metadata_count

    def read_value(self, kind: int) -> Any:
        """Return a number or text; of a list only that it is one."""
        if kind == _STRING:
            return self.read_text()
        if kind in _NUMBERS:
            return self.read_number(_NUMBERS[kind])
        if kind != _ARRAY:
            raise InvalidModel(f"it has a value of the unknown kind {kind}")
        inner, length = self.read_number("<I"), self.read_number("<Q")
        if inner in _NUMBERS:
            self.read_bytes(length * struct.calcsize(_NUMBERS[inner]))
        elif inner == _STRING:
            self._count(length)
            for _ in range(length):
                self.read_text()
        else:
            raise InvalidModel(f"it has a list of the unknown kind {inner}")
        return None

    def read_tensors(self, count: int) -> dict[str, Tensor]:
        tensors = dict(self.read_tensor() for _ in range(count))
        if len(tensors) < count:
            raise InvalidModel("it has two tensors of the same name")
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
            raise InvalidModel("it has more texts than any model's header")


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of the file at `path`, shaped as torch has them, and its numbers and texts.

    Raises InvalidModel for damaged headers, and for tensors whose bytes are not all in the file, each at its own place.
    """
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
    return declared_tensors, {name: str(value) for name, value in metadata.items()}


def _size(name: str, kind: int, shape: tuple[int, ...]) -> int:
    """Return a tensor's bytes; of an unknown number type the fewest that it can have."""
    elements = math.prod(shape)
    if kind not in _types():
        return elements // 8
    _, block, size = _types()[kind]
    if shape and shape[0] % block:
        raise InvalidModel(f"tensor {name} has rows of {shape[0]}, which are not whole blocks of {block}")
    return elements // block * size


def _alignment(metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= 2**20 or alignment & (alignment - 1):
        raise InvalidModel(f"its alignment is {alignment}, which is no power of two")
    return alignment


def _check_ranges(ranges: list[_Range], size: int, alignment: int) -> None:
    """Raise InvalidModel unless every tensor lies within `size` bytes, and none on another."""
    end, last_name = 0, ""
    for begin, tensor_end, name in sorted(ranges):
        if begin % alignment:
            raise InvalidModel(f"tensor {name} does not begin at a multiple of {alignment}")
        if begin < end:
            raise InvalidModel(f"the tensors {last_name} and {name} overlap")
        if tensor_end > size:
            raise InvalidModel(f"it is cut off: tensor {name} ends {tensor_end - size} bytes behind its end")
        end, last_name = tensor_end, name
