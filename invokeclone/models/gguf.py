"""What tensors and facts a GGUF file declares; only its header is read."""

import math
import struct
from pathlib import Path
from typing import IO, Any

from invokeclone.models.errors import InvalidModel
from invokeclone.models.tensors import Tensor

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_HEADER_BYTES = 100_000_000
_MAX_DIMENSIONS = 8
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16",
}  # fmt: skip


class _Header:
    """Reads values one after the other and never beyond the limit."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._left = file, _MAX_HEADER_BYTES

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

    def begin(self) -> None:
        if self.bytes(4) != _MAGIC or self.number("<I") not in _VERSIONS:
            raise InvalidModel("it does not begin as one does")

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
            for _ in range(length):
                self.text()
        else:
            raise InvalidModel(f"it has a list of the unknown kind {inner}")
        return None

    def tensor(self) -> tuple[str, Tensor]:
        name = self.text()
        dimensions = self.number("<I")
        if dimensions > _MAX_DIMENSIONS:
            raise InvalidModel(f"tensor {name} has {dimensions} dimensions")
        shape = tuple(self.number("<Q") for _ in range(dimensions))
        kind = self.number("<I")
        self.number("<Q")  # where its data begin
        return name, Tensor(_TYPES.get(kind, f"GGML{kind}"), shape[::-1])


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of the file at `path`, shaped as torch has them, and its numbers and texts. Raises InvalidModel."""
    with path.open("rb") as file:
        header = _Header(file)
        try:
            header.begin()
            tensors, facts = header.number("<Q"), header.number("<Q")
            pairs = ((header.text(), header.value(header.number("<I"))) for _ in range(facts))
            notes = {name: str(value) for name, value in pairs if value is not None}
            found = dict(header.tensor() for _ in range(tensors))
        except InvalidModel as error:
            raise InvalidModel(f"{path.name} is not a GGUF file, or is damaged: {error}") from error
    smallest = sum(math.prod(tensor.shape) for tensor in found.values()) // 8
    if path.stat().st_size < smallest:
        raise InvalidModel(f"{path.name} is cut off: its tensors need more than {smallest} bytes")
    return found, notes
