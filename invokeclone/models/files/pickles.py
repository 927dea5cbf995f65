"""Files of torch's own form (.pt, .pth, .ckpt, .bin), read without torch and without running anything in them.

`read` says which tensors a file declares, `content` also where their bytes lie. A file that names anything but tensors is
refused, as is one whose tensors are not wholly there.
"""

import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from invokeclone.models.errors import InvalidModel
from invokeclone.models.files.tensors import Tensor
from invokeclone.models.files.unpickler import (
    ITEM_BYTES,
    MAX_BYTES,
    MAX_TENSORS,
    LimitedFile,
    Storage,
    StoredTensor,
    Unpickler,
)

MAX_DIRECTORY_BYTES = 64_000_000
"""Bytes of the list of files in a zip file."""
_MAX_DEPTH = 4
_MAX_ENTRIES = 400_000
_MAX_TEXT_LENGTH = 10_000_000
"""Characters of a text beside the tensors."""
_MAGIC = 0x1950A86A20F9469CFC6C
_WRAPPERS = ("state_dict", "params_ema", "params", "model_state_dict")
"""Names under which trainers put the tensors; what lies beside them are their own notes."""
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Of the header before a file in a zip file: signature, length of its name, length of what follows that."""
_COUNT = struct.Struct("<q")
_DIRECTORY_SIZE = 5
"""Where `zipfile` keeps the size of the list of files, among what it reads at a zip file's end."""


@dataclass(frozen=True)
class Extent:
    """Bytes of a file."""

    offset: int
    size: int


@dataclass(frozen=True)
class PickleContent:
    """What a file holds: nested mappings of StoredTensor and plain values, and where in the file the storages lie, by key."""

    values: Mapping[Any, Any]
    extents: Mapping[str, Extent] = field(default_factory=dict)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of the file at `path` by name, and the plain numbers and texts that lie beside them.

    Blocking. Raises InvalidModel for anything that is no such file, is cut off, or could run code.
    """
    values = read_content(path).values
    metadata = {str(name): str(value) for name, value in values.items() if _is_metadata_value(value)}
    tensors: dict[str, Tensor] = {}
    _flatten(next((values[name] for name in _WRAPPERS if isinstance(values.get(name), Mapping)), values), "", tensors)
    return tensors, metadata


def read_content(path: Path) -> PickleContent:
    """Return what the file at `path` holds and where. Blocking. Raises InvalidModel as `read` does."""
    with path.open("rb") as file:
        try:
            values, extents, storages = (_read_zip if zipfile.is_zipfile(file) else _read_legacy)(file)
            _check_extents(extents, storages)
        except (
            Exception
        ) as error:  # what damaged files make the readers of pickles and zip files raise is of many kinds
            raise InvalidModel(f"{path.name} is a pickle file that cannot be read safely: {error}") from error
    if not isinstance(values, Mapping):
        raise InvalidModel(f"{path.name} is a pickle file that holds no tensors by name")
    return PickleContent(values, extents)


_ReadResult = tuple[object, dict[str, Extent], dict[str, Storage]]


def _read_zip(file: IO[bytes]) -> _ReadResult:
    directory = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # noqa: SLF001  (else it is read whole, whatever its size)
    if directory is None or directory[_DIRECTORY_SIZE] > MAX_DIRECTORY_BYTES:
        raise zipfile.BadZipFile("it is a zip file with a longer list of files than any model's")
    with zipfile.ZipFile(file) as archive:
        data_member = next((info for info in archive.infolist() if info.filename.split("/")[-1] == "data.pkl"), None)
        if data_member is None or data_member.file_size > MAX_BYTES:
            raise zipfile.BadZipFile("it is a zip file without tensors")
        folder = data_member.filename.removesuffix("data.pkl")
        _check_byte_order(archive, folder)
        with archive.open(data_member) as stream:
            reader = Unpickler(LimitedFile(stream))
            values = reader.load()
        infos = {info.filename: info for info in archive.infolist()}
        extents = {
            key: _extent(file, infos[f"{folder}data/{key}"])
            for key in reader.storages
            if f"{folder}data/{key}" in infos
        }
    return values, extents, reader.storages


def _check_byte_order(archive: zipfile.ZipFile, folder: str) -> None:
    name = f"{folder}byteorder"
    if name in archive.namelist() and archive.read(name)[:10].strip() != b"little":
        raise zipfile.BadZipFile("its numbers are in the byte order of another kind of machine")


def _extent(file: IO[bytes], info: zipfile.ZipInfo) -> Extent:
    """Return where the bytes of a file in a zip file lie; torch stores them as they are."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise zipfile.BadZipFile("its tensors are packed, which torch never does")
    file.seek(info.header_offset)
    signature, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    offset = info.header_offset + _LOCAL_HEADER.size + name + extra
    if signature != b"PK\x03\x04" or offset + info.file_size > _file_length(file):
        raise zipfile.BadZipFile("it is cut off")
    return Extent(offset, info.file_size)


def _read_legacy(file: IO[bytes]) -> _ReadResult:
    """Read a file as torch wrote it before version 1.6: several pickles one after the other, then the storages."""
    file.seek(0)
    limited = LimitedFile(file)
    if Unpickler(limited).load() != _MAGIC:
        raise pickle.UnpicklingError("it was not written by torch")
    Unpickler(limited).load()  # the version of the form
    system_info = Unpickler(limited).load()
    if isinstance(system_info, dict) and system_info.get("little_endian") is False:
        raise pickle.UnpicklingError("its numbers are in the byte order of another kind of machine")
    reader = Unpickler(limited)
    values = reader.load()
    keys = Unpickler(limited).load()
    return values, _sequential_extents(file, keys, reader.storages), reader.storages


def _sequential_extents(file: IO[bytes], keys: object, storages: Mapping[str, Storage]) -> dict[str, Extent]:
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in storages for key in keys):
        raise pickle.UnpicklingError("it does not say which storages it holds")
    extents = {}
    for key in keys:
        count = _COUNT.unpack(file.read(_COUNT.size))[0]
        extent = Extent(file.tell(), count * ITEM_BYTES[storages[key].dtype])
        if count < 0 or extent.offset + extent.size > _file_length(file):
            raise pickle.UnpicklingError("it is cut off")
        extents[key] = extent
        file.seek(extent.size, 1)
    return extents


def _file_length(file: IO[bytes]) -> int:
    position = file.tell()
    end = file.seek(0, 2)
    file.seek(position)
    return end


def _check_extents(extents: Mapping[str, Extent], storages: Mapping[str, Storage]) -> None:
    """Raise UnpicklingError unless every storage is in the file, in its whole size."""
    for key, storage in storages.items():
        if key not in extents or storage.count * ITEM_BYTES[storage.dtype] > extents[key].size:
            raise pickle.UnpicklingError(f"it is cut off: storage {key} is not all there")


def _is_metadata_value(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_TEXT_LENGTH
    return isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= 64)  # noqa: PLR2004


def _flatten(content: Any, prefix: str, tensors: dict[str, Tensor]) -> None:
    """Collect the tensors in nested mappings under names joined by dots; mappings that never end are followed no further."""
    stack = [(prefix, content, 0)]
    entries = 0
    while stack:
        name, value, depth = stack.pop()
        if isinstance(value, StoredTensor):
            tensors[name] = Tensor(value.dtype, value.shape)
        elif isinstance(value, Mapping) and depth < _MAX_DEPTH:
            entries += len(value)
            if entries > _MAX_ENTRIES or len(tensors) > MAX_TENSORS:
                raise InvalidModel("the file declares more tensors than any model has")
            inner = [(f"{name}.{key}" if name else str(key), child, depth + 1) for key, child in value.items()]
            stack += reversed(inner)
