"""Torch files (.pt, .pth, .ckpt, .bin) as tensors without torch.load; `models.files` interprets their pickles."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from invokeclone.models.errors import InvalidModel
from invokeclone.models.files import pickles
from invokeclone.models.files.pickles import Extent
from invokeclone.models.files.unpickler import StoredTensor

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "C64": torch.complex64, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "U16": torch.uint16,
    "U32": torch.uint32, "U64": torch.uint64,
}  # fmt: skip
_MAX_DEPTH = 4
_MAX_MODULES = 12
"""Maximum depth of modules in modules."""
_ALIGNMENT = 16
_MAX_REUSE = 16
"""Limit of the total size of all tensors, in multiples of the file's size; tied weights share a storage."""


def read(path: Path) -> dict[str, Any]:
    """Return the tensors and mappings of tensors of a file, by name; other objects are skipped.

    Tensors are memory-mapped if the file's layout allows it, otherwise read. Raises InvalidModel for files that are
    damaged, truncated, or refer to anything but tensors.
    """
    content = pickles.read_content(path)
    reader = _Reader(path, content.extents)
    values: dict[str, Any] = reader.tensors(content.values, 0)
    return values


def read_modules(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by dotted names; of a TorchScript archive too, whose code is ignored.

    Raises InvalidModel as `read` does.
    """
    content = pickles.read_content(path, with_modules=True)
    reader = _Reader(path, content.extents, _MAX_MODULES)
    return dict(_flat(reader.tensors(content.values, 0), ""))


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{name}", value
        else:
            yield from _flat(value, f"{prefix}{name}.")


class _Reader:
    """Creates tensors from a file's storages; several tensors may be views of one storage."""

    def __init__(self, path: Path, extents: Mapping[str, Extent], max_depth: int = _MAX_DEPTH) -> None:
        self._max_depth = max_depth
        size = path.stat().st_size
        self._path, self._extents, self._left = path, extents, size * _MAX_REUSE
        self._whole = torch.UntypedStorage.from_file(str(path), False, size)
        self._storages: dict[str, torch.UntypedStorage] = {}

    def tensors(self, values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        """Return the tensors and mappings among `values`."""
        result: dict[str, Any] = {}
        for name, value in values.items():
            if isinstance(value, StoredTensor):
                result[str(name)] = self._tensor(value)
            elif isinstance(value, Mapping) and depth < self._max_depth:
                self._spend(len(value))
                result[str(name)] = self.tensors(value, depth + 1)
        return result

    def _tensor(self, stored: StoredTensor) -> torch.Tensor:
        dtype = _DTYPES[stored.dtype]
        tensor = torch.empty(0, dtype=dtype)
        start = stored.storage.start * _DTYPES[stored.storage.dtype].itemsize // dtype.itemsize
        tensor.set_(self._storage(stored.storage.key), start + stored.offset, stored.shape, stored.strides)
        self._spend(tensor.nbytes)
        return tensor

    def _storage(self, key: str) -> torch.UntypedStorage:
        if key not in self._storages:
            extent = self._extents[key]
            storage = self._whole[extent.offset : extent.offset + extent.size]
            self._storages[key] = storage if extent.offset % _ALIGNMENT == 0 else storage.clone()
        return self._storages[key]

    def _spend(self, amount: int) -> None:
        """Count the bytes of created tensors, so that views of one storage cannot fill the memory."""
        self._left -= amount
        if self._left < 0:
            raise InvalidModel(f"{self._path.name} declares too many tensors over the same bytes")
