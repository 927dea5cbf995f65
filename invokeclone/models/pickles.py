"""What tensors a file of torch's own form (.pt, .pth, .ckpt, .bin) declares, read without torch and without running anything.

Such a file is a pickle, which can name any function to call. Here only the few names are known that tensors are made
of, and they make descriptions; a file that names anything else is refused, which is what a scanner for malware would do.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from invokeclone.models.errors import InvalidModel
from invokeclone.models.tensors import Tensor

_MAX_BYTES = 100_000_000
_MAX_DEPTH = 4
_MAX_TENSORS = 200_000
_MAGIC = 0x1950A86A20F9469CFC6C
_WRAPPERS = ("state_dict", "params_ema", "params", "model_state_dict")
"""Names under which trainers put the tensors; what lies beside them are their own notes."""

_DTYPES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "LongStorage": "I64",
    "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL",
}  # fmt: skip


def _tensor(storage: object, _offset: object, size: object, *_: object) -> Tensor:
    if not isinstance(size, tuple) or not all(isinstance(length, int) for length in size):
        raise pickle.UnpicklingError("a tensor without a shape")
    return Tensor(str(storage), size)


def _parameter(data: object, *_: object) -> object:
    return data


class Inert:
    """In the place of a trainer's object in a published checkpoint, which is neither imported nor made."""

    def __init__(self, *args: object, **named: object) -> None:
        """Leave everything out."""

    def __setstate__(self, state: object) -> None:
        """Leave everything out."""


INERT_NAMES = (
    ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
    ("lightning.pytorch.callbacks.model_checkpoint", "ModelCheckpoint"),
    ("pytorch_lightning.callbacks.early_stopping", "EarlyStopping"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "dtype"),
)
"""Names of what lies beside the tensors in published checkpoints of Stable Diffusion 1 and 2."""

_KNOWN: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): tuple,
    ("_codecs", "encode"): Inert,
    **dict.fromkeys(INERT_NAMES, Inert),
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


class _Reader(pickle._Unpickler):  # noqa: SLF001  (the one in C reserves as much memory as a hostile file asks for)
    """Makes descriptions of tensors, and refuses every name that it doesn't know."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and what it would do is not known to be harmless")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Return the number type of a storage; `pid` is `("storage", type, key, device, length, …)`."""
        return pid[1] if isinstance(pid, tuple) and len(pid) > 1 else ""


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of the file at `path` by name, and the plain numbers and texts that lie beside them.

    Blocking. Raises InvalidModel for anything that is no such file or could run code.
    """
    try:
        content = _zipped(path) if zipfile.is_zipfile(path) else _plain(path)
    except (
        pickle.UnpicklingError, zipfile.BadZipFile, EOFError, AttributeError, LookupError, TypeError, ValueError,
        OverflowError, MemoryError, RuntimeError,
    ) as error:  # fmt: skip
        raise InvalidModel(f"{path.name} is a pickle file that cannot be read safely: {error}") from error
    if not isinstance(content, Mapping):
        raise InvalidModel(f"{path.name} holds no tensors by name")
    notes = {str(name): str(value) for name, value in content.items() if isinstance(value, str | int | float)}
    found: dict[str, Tensor] = {}
    _flatten(
        next((content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping)), content), "", found, 0
    )
    return found, notes


def _zipped(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        inside = next((info for info in archive.infolist() if info.filename.split("/")[-1] == "data.pkl"), None)
        if inside is None or inside.file_size > _MAX_BYTES:
            raise zipfile.BadZipFile("it is a zip file without tensors")
        with archive.open(inside) as file:
            return _Reader(file).load()


def _plain(path: Path) -> object:
    """Return the content of a file as torch wrote it before version 1.6: several pickles one after the other."""
    with path.open("rb") as file:
        limited = _Limited(file)
        if _Reader(limited).load() != _MAGIC:
            raise pickle.UnpicklingError("it was not written by torch")
        _Reader(limited).load()  # the version of the form
        _Reader(limited).load()  # the machine that wrote it
        return _Reader(limited).load()


class _Limited:
    """The beginning of a file, so that a pickle can't ask for more memory than it may have."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._left = file, _MAX_BYTES

    def _took(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data

    def read(self, size: int = -1) -> bytes:
        return self._took(self._file.read(min(size, self._left) if size >= 0 else self._left))

    def readline(self) -> bytes:
        return self._took(self._file.readline(self._left))

    def readinto(self, buffer: bytearray) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _flatten(content: Any, name: str, found: dict[str, Tensor], depth: int) -> None:
    """Collect the tensors in nested mappings under names joined by dots."""
    if isinstance(content, Tensor):
        found[name] = content
    elif isinstance(content, Mapping) and depth < _MAX_DEPTH:
        for key, value in content.items():
            if len(found) >= _MAX_TENSORS:
                raise InvalidModel("the file declares more tensors than any model has")
            _flatten(value, f"{name}.{key}" if name else str(key), found, depth + 1)
