"""Tensors of GGUF files: quantized matrices stay packed, everything else is decoded when the file is read."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from io import FileIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from invokeclone.engine.quantized.packed import PackedTensor
from invokeclone.graph.checkpoints import checkpoint
from invokeclone.models.errors import InvalidModel
from invokeclone.models.files import gguf
from invokeclone.models.files.gguf import StoredData

_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
_PLAIN |= {"I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64}
_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
"""Prefix of metadata with the shapes of tensors that the writer had to flatten."""


class UndecodableType(ValueError):
    """There is no decoder for a quantization type."""


@dataclass(frozen=True)
class GGUFTensor(PackedTensor):
    """A matrix of GGUF blocks; scales are float16, as in diffusers' decoder."""

    kind: str = ""

    def decode_whole(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the matrix in a number format, decoded at once."""
        return decode(self.parts["blocks"], self.kind).reshape(self.shape).to(dtype)


def decode(packed: torch.Tensor, kind: str) -> torch.Tensor:
    """Return the values (…) of packed bytes of a quantization type. Raises UndecodableType."""
    function, block, size = _decoder(kind)
    values: torch.Tensor = function(packed.contiguous().view(torch.uint8).reshape(-1, size), block, size)
    return values


@cache
def _decoder(kind: str) -> tuple[Any, int, int]:
    """Return the decoder of a type, and the values and bytes of its blocks."""
    from diffusers.quantizers.gguf.utils import dequantize_functions
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    number = getattr(GGMLQuantizationType, kind, None)
    if number is None or (number not in dequantize_functions and not _has_reference(number)):
        usable = ", ".join(sorted(decodable.name for decodable in dequantize_functions))
        raise UndecodableType(f"tensors of GGUF type {kind} cannot be decoded: use a file of one of {usable}")
    return dequantize_functions.get(number, _reference(number)), *GGML_QUANT_SIZES[number]


def _has_reference(number: Any) -> bool:
    from gguf import quants

    return number in quants._type_traits  # noqa: SLF001


def _reference(number: Any) -> Any:
    """Return a decoder by the gguf library, in NumPy, for types that diffusers lacks."""

    def function(blocks: torch.Tensor, _block: int, _size: int) -> torch.Tensor:
        from gguf import quants

        return torch.from_numpy(quants.dequantize(blocks.cpu().numpy(), number)).to(blocks.device)

    return function


def read_tensors(path: Path, prefixes: Iterable[str] = ("",)) -> dict[str, torch.Tensor | GGUFTensor]:
    """Return the tensors of a GGUF file whose names begin with one of `prefixes`; matrices of quantized types are packed.

    Raises InvalidModel for a damaged file, and UndecodableType with the file's name.
    """
    stored, metadata = gguf.locate(path)
    starts = tuple(prefixes)
    tensors: dict[str, torch.Tensor | GGUFTensor] = {}
    with path.open("rb", buffering=0) as file:
        for name, data in stored.items():
            if not name.startswith(starts):
                continue
            checkpoint()
            content = _read(file, data, path.name)
            try:
                tensors[name] = _tensor(content, data._replace(shape=_original_shape(name, data, metadata)))
            except UndecodableType as error:
                raise UndecodableType(f"{path.name}: {error}") from error
    return tensors


def _read(file: FileIO, data: StoredData, name: str) -> torch.Tensor:
    """Return the bytes of a tensor. They are copied from the file, which may be replaced later."""
    content = bytearray(data.size)
    rest = memoryview(content)
    file.seek(data.begin)
    while rest:
        if not (count := file.readinto(rest)):
            raise InvalidModel(f"{name} became shorter while it was read: install it again")
        rest = rest[count:]
    return torch.from_numpy(np.frombuffer(content, np.uint8))


def _original_shape(name: str, data: StoredData, metadata: dict[str, str]) -> tuple[int, ...]:
    text = metadata.get(f"{_ORIGINAL_SHAPE}{name}")
    if text is None:
        return data.shape
    shape = tuple(int(side) for side in text.strip("[]() ").split(",") if side.strip().isdigit())
    return shape if prod(shape) == prod(data.shape) else data.shape


def _tensor(content: torch.Tensor, data: StoredData) -> torch.Tensor | GGUFTensor:
    if data.kind in _PLAIN:
        return content.view(_PLAIN[data.kind]).reshape(data.shape)
    _decoder(data.kind)
    if len(data.shape) == 2:  # noqa: PLR2004 - a matrix
        return GGUFTensor({"blocks": content.reshape(data.shape[0], -1)}, torch.Size(data.shape), data.kind)
    return decode(content, data.kind).reshape(data.shape)
