"""Reader of torch pickle files (.pt, .pth, .ckpt, .bin), without torch and without executing code.

`read` returns the declared tensors, `read_content` also the location of their bytes. Files that refer to anything but
tensors, and truncated files, are refused.
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
"""Maximum size in bytes of the central directory of a zip file."""
_MAX_DEPTH = 4
_MAX_ENTRIES = 400_000
_MAX_TEXT_LENGTH = 10_000_000
"""Maximum length in characters of a metadata string."""
_MAGIC = 0x1950A86A20F9469CFC6C
_WRAPPERS = ("state_dict", "params_ema", "params", "model_state_dict")
"""Keys under which trainers store the tensors; other keys are metadata of the trainer."""
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Local file header of a zip entry: signature, length of the name, length of the extra field."""
_COUNT = struct.Struct("<q")
_DIRECTORY_SIZE = 5
"""Index of the central directory's size in the end record read by `zipfile`."""


@dataclass(frozen=True)
class Extent:
    """A byte range of a file."""

    offset: int
    size: int


@dataclass(frozen=True)
class PickleContent:
    """Content of a file: nested mappings of StoredTensor and plain values, and the extents of the storages by key."""

    values: Mapping[Any, Any]
    extents: Mapping[str, Extent] = field(default_factory=dict)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file by name, and its scalar metadata.

    Blocking. Raises InvalidModel if the file is not a torch file, is truncated, or could execute code.
    """
    values = read_content(path).values
    metadata = {str(name): str(value) for name, value in values.items() if _is_metadata_value(value)}
    tensors: dict[str, Tensor] = {}
    _flatten(next((values[name] for name in _WRAPPERS if isinstance(values.get(name), Mapping)), values), "", tensors)
    return tensors, metadata


def read_content(path: Path, *, with_modules: bool = False) -> PickleContent:
    """Return the content of a file and the location of its storages. Blocking. Raises InvalidModel as `read` does.

    `with_modules`: TorchScript archives too, whose modules are mappings; others are read as without it.
    """
    with path.open("rb") as file:
        try:
            is_zip = zipfile.is_zipfile(file)
            values, extents, storages = _read_zip(file, with_modules=with_modules) if is_zip else _read_legacy(file)
            _check_extents(extents, storages)
        except Exception as error:  # damaged files make pickle and zipfile raise many kinds of exceptions
            raise InvalidModel(f"{path.name} is a pickle file that cannot be read safely: {error}") from error
    if not isinstance(values, Mapping):
        raise InvalidModel(f"{path.name} is a pickle file without named tensors")
    return PickleContent(values, extents)


_ReadResult = tuple[object, dict[str, Extent], dict[str, Storage]]


def _read_zip(file: IO[bytes], *, with_modules: bool) -> _ReadResult:
    directory = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # noqa: SLF001  (else any size is read)
    if directory is None or directory[_DIRECTORY_SIZE] > MAX_DIRECTORY_BYTES:
        raise zipfile.BadZipFile("its zip directory is too large")
    with zipfile.ZipFile(file) as archive:
        data_member = next((info for info in archive.infolist() if info.filename.split("/")[-1] == "data.pkl"), None)
        if data_member is None or data_member.file_size > MAX_BYTES:
            raise zipfile.BadZipFile("it is a zip file without tensors")
        folder = data_member.filename.removesuffix("data.pkl")
        _check_byte_order(archive, folder)
        with archive.open(data_member) as stream:
            reader = Unpickler(LimitedFile(stream), with_modules=with_modules)
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
        raise zipfile.BadZipFile("it is not in little-endian byte order")


def _extent(file: IO[bytes], info: zipfile.ZipInfo) -> Extent:
    """Return the location of a zip entry's bytes, which torch stores uncompressed."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise zipfile.BadZipFile("its tensors are compressed or encrypted, which torch never does")
    file.seek(info.header_offset)
    signature, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    offset = info.header_offset + _LOCAL_HEADER.size + name + extra
    if signature != b"PK\x03\x04" or offset + info.file_size > _file_length(file):
        raise zipfile.BadZipFile("it is truncated")
    return Extent(offset, info.file_size)


def _read_legacy(file: IO[bytes]) -> _ReadResult:
    """Read the format of torch before version 1.6: several consecutive pickles, then the storages."""
    file.seek(0)
    limited = LimitedFile(file)
    if Unpickler(limited).load() != _MAGIC:
        raise pickle.UnpicklingError("it was not written by torch")
    Unpickler(limited).load()  # the format version
    system_info = Unpickler(limited).load()
    if isinstance(system_info, dict) and system_info.get("little_endian") is False:
        raise pickle.UnpicklingError("it is not in little-endian byte order")
    reader = Unpickler(limited)
    values = reader.load()
    keys = Unpickler(limited).load()
    return values, _sequential_extents(file, keys, reader.storages), reader.storages


def _sequential_extents(file: IO[bytes], keys: object, storages: Mapping[str, Storage]) -> dict[str, Extent]:
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in storages for key in keys):
        raise pickle.UnpicklingError("its list of storages is not valid")
    extents = {}
    for key in keys:
        count = _COUNT.unpack(file.read(_COUNT.size))[0]
        extent = Extent(file.tell(), count * ITEM_BYTES[storages[key].dtype])
        if count < 0 or extent.offset + extent.size > _file_length(file):
            raise pickle.UnpicklingError("it is truncated")
        extents[key] = extent
        file.seek(extent.size, 1)
    return extents


def _file_length(file: IO[bytes]) -> int:
    position = file.tell()
    end = file.seek(0, 2)
    file.seek(position)
    return end


def _check_extents(extents: Mapping[str, Extent], storages: Mapping[str, Storage]) -> None:
    """Raise UnpicklingError unless every storage is completely in the file."""
    for key, storage in storages.items():
        if key not in extents or storage.count * ITEM_BYTES[storage.dtype] > extents[key].size:
            raise pickle.UnpicklingError(f"it is truncated: storage {key} is incomplete")


def _is_metadata_value(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_TEXT_LENGTH
    return isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= 64)  # noqa: PLR2004


def _flatten(content: Any, prefix: str, tensors: dict[str, Tensor]) -> None:
    """Collect the tensors of nested mappings under dotted names; the depth limit stops at recursive mappings."""
    stack = [(prefix, content, 0)]
    entries = 0
    while stack:
        name, value, depth = stack.pop()
        if isinstance(value, StoredTensor):
            tensors[name] = Tensor(value.dtype, value.shape)
        elif isinstance(value, Mapping) and depth < _MAX_DEPTH:
            entries += len(value)
            if entries > _MAX_ENTRIES or len(tensors) > MAX_TENSORS:
                raise InvalidModel("the file declares too many tensors")
            inner = [(f"{name}.{key}" if name else str(key), child, depth + 1) for key, child in value.items()]
            stack += reversed(inner)
