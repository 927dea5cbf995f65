"""What tensors and facts a GGUF file declares; only its header is read, and checked against the file's length."""

import math
import struct
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
_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip
"""Number types: name, elements of a block, bytes of a block."""


class _Range(NamedTuple):
    """Where a tensor's bytes lie behind the header."""

    begin: int
    end: int
    name: str


class _Header:
    """Reads values one after the other and never beyond the limits."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._left, self._values = file, _MAX_HEADER_BYTES, _MAX_VALUES
        self.ranges: list[_Range] = []

    @property
    def length(self) -> int:
        """The bytes read so far."""
        return _MAX_HEADER_BYTES - self._left

    def bytes(self, length: int) -> bytes:
        if length > self._left:
            raise InvalidModel("a GGUF header larger than any model's")
        self._left -= length
        data = self._file.read(length)
        if len(data) < length:
            raise InvalidModel("it is cut off")
        return data

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.bytes(struct.calcsize(form)))[0]

    def text(self) -> str:
        return self.bytes(self.number("<Q")).decode("utf-8", "replace")

    def begin(self) -> tuple[int, int]:
        """Return how many tensors and facts there are."""
        if self.bytes(4) != _MAGIC or self.number("<I") not in _VERSIONS:
            raise InvalidModel("it does not begin as one does")
        tensors, facts = self.number("<Q"), self.number("<Q")
        if tensors > _MAX_TENSORS:
            raise InvalidModel("it declares more tensors than any model has")
        self._count(facts)
        return tensors, facts

    def value(self, kind: int) -> Any:
        """Return a number or text; of a list only that it is one."""
        if kind == _STRING:
            return self.text()
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind != _ARRAY:
            raise InvalidModel(f"it has a value of the unknown kind {kind}")
        inner, length = self.number("<I"), self.number("<Q")
        if inner in _NUMBERS:
            self.bytes(length * struct.calcsize(_NUMBERS[inner]))
        elif inner == _STRING:
            self._count(length)
            for _ in range(length):
                self.text()
        else:
            raise InvalidModel(f"it has a list of the unknown kind {inner}")
        return None

    def tensors(self, count: int) -> dict[str, Tensor]:
        found = dict(self.tensor() for _ in range(count))
        if len(found) < count:
            raise InvalidModel("it has two tensors of the same name")
        return found

    def tensor(self) -> tuple[str, Tensor]:
        name = self.text()
        dimensions = self.number("<I")
        if dimensions > _MAX_DIMENSIONS:
            raise InvalidModel(f"tensor {name} has {dimensions} dimensions")
        shape = tuple(self.number("<Q") for _ in range(dimensions))
        kind, begin = self.number("<I"), self.number("<Q")
        self.ranges.append(_Range(begin, begin + _size(name, kind, shape), name))
        return name, Tensor(_TYPES[kind][0] if kind in _TYPES else f"GGML{kind}", shape[::-1])

    def _count(self, values: int) -> None:
        self._values -= values
        if self._values < 0:
            raise InvalidModel("it has more texts than any model's header")


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of the file at `path`, shaped as torch has them, and its numbers and texts.

    Raises InvalidModel for damaged headers, and for tensors whose bytes are not all in the file, each at its own place.
    """
    with path.open("rb") as file:
        header = _Header(file)
        try:
            tensors, facts = header.begin()
            pairs = ((header.text(), header.value(header.number("<I"))) for _ in range(facts))
            notes = {name: value for name, value in pairs if value is not None}
            found = header.tensors(tensors)
            alignment = _alignment(notes)
            begin = -(-header.length // alignment) * alignment
            _check_ranges(header.ranges, path.stat().st_size - begin, alignment)
        except InvalidModel as error:
            raise InvalidModel(f"{path.name} is not a GGUF file, or is damaged: {error}") from error
    return found, {name: str(value) for name, value in notes.items()}


def _size(name: str, kind: int, shape: tuple[int, ...]) -> int:
    """Return a tensor's bytes; of an unknown number type the fewest that it can have."""
    elements = math.prod(shape)
    if kind not in _TYPES:
        return elements // 8
    _, block, size = _TYPES[kind]
    if shape and shape[0] % block:
        raise InvalidModel(f"tensor {name} has rows of {shape[0]}, which are not whole blocks of {block}")
    return elements // block * size


def _alignment(notes: dict[str, Any]) -> int:
    alignment = notes.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= 2**20 or alignment & (alignment - 1):
        raise InvalidModel(f"its alignment is {alignment}, which is no power of two")
    return alignment


def _check_ranges(ranges: list[_Range], size: int, alignment: int) -> None:
    """Raise InvalidModel unless every tensor lies within `size` bytes, and none on another."""
    end, last = 0, ""
    for begin, until, name in sorted(ranges):
        if begin % alignment:
            raise InvalidModel(f"tensor {name} does not begin at a multiple of {alignment}")
        if begin < end:
            raise InvalidModel(f"the tensors {last} and {name} overlap")
        if until > size:
            raise InvalidModel(f"it is cut off: tensor {name} ends {until - size} bytes behind its end")
        end, last = until, name
