"""A safe unpickler that builds tensor descriptions and plain values, and calls no function that a file names.

A pickle is a program that names functions to call and attributes to set. Only the names that torch writes for tensors
are resolved, to constructors of descriptions. Mapping keys must be plain values, as hashing nested ones could take
forever. The number of instructions is limited, so that a small file cannot exhaust memory.
"""

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any, ClassVar, TypeGuard

MAX_BYTES = 64_000_000
"""Maximum size of a pickle in bytes; that of a complete Stable Diffusion checkpoint has about 500 000."""
MAX_INSTRUCTIONS = 4_000_000
MAX_TENSORS = 200_000
MAX_DIMENSIONS = 16

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1, "C64": 8,
    "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "U32": 4, "U64": 8,
}  # fmt: skip
"""Bytes per element by dtype."""
_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "LongStorage": "I64",
    "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL",
    "ComplexFloatStorage": "C64",
}  # fmt: skip
_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "complex64": "C64", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "uint16": "U16", "uint32": "U32", "uint64": "U64",
}  # fmt: skip
INERT_NAMES = (
    ("_codecs", "encode"),
    ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
    ("lightning.pytorch.callbacks.model_checkpoint", "ModelCheckpoint"),
    ("pytorch_lightning.callbacks.early_stopping", "EarlyStopping"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "dtype"),
)
"""Names of other objects in published checkpoints of Stable Diffusion 1 and 2, which become `Inert`."""
_SCRIPT = "__torch__"
"""First part of the names of TorchScript's classes."""
_PLAIN_KEYS = (str, int, float, bytes, type(None))


@dataclass(frozen=True)
class Storage:
    """`count` consecutive elements of a storage in the file, starting at element `start`."""

    key: str
    dtype: str
    count: int
    start: int = 0


@dataclass(frozen=True)
class StoredTensor:
    """A view of a storage; shape, strides and offset are in elements and verified to be within the storage."""

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    storage: Storage


class PickledParameters(dict[str, Any]):
    """The content of a torch.nn.ParameterDict; created empty, so that no key is hashed before it is checked."""

    def __init__(self) -> None:
        """Create an empty mapping."""
        super().__init__()


class ScriptModule(dict[str, Any]):
    """The attributes of a module in a TorchScript archive, by name; its class and code are ignored."""


class Inert:
    """Placeholder for a trainer's object in a checkpoint, whose class is neither imported nor instantiated."""

    def __init__(self, *_: object) -> None:
        """Ignore all arguments."""


class LimitedFile:
    """A file of which at most MAX_BYTES can be read, in at most MAX_INSTRUCTIONS reads."""

    def __init__(self, file: IO[bytes]) -> None:
        """Start at the current position of `file`."""
        self._file, self._remaining_bytes, self._reads = file, MAX_BYTES, 0

    def _count_read(self, data: bytes) -> bytes:
        self._remaining_bytes -= len(data)
        self._reads += 1
        if self._reads > MAX_INSTRUCTIONS:
            raise pickle.UnpicklingError("it has too many pickle instructions")
        return data

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes."""
        return self._count_read(
            self._file.read(min(size, self._remaining_bytes) if size >= 0 else self._remaining_bytes)
        )

    def readline(self) -> bytes:
        """Return the bytes up to and including the next newline."""
        return self._count_read(self._file.readline(self._remaining_bytes))


class Unpickler(pickle._Unpickler):  # noqa: SLF001  (the C implementation allocates any size a file declares)
    """Reader of one pickle. Raises UnpicklingError; damaged pickles may raise other exceptions."""

    dispatch: ClassVar[dict[int, Callable[..., Any]]] = dict(pickle._Unpickler.dispatch)  # noqa: SLF001
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: LimitedFile, *, with_modules: bool = False) -> None:
        """Read from `file`; `with_modules`: a pickle of TorchScript, whose modules become mappings."""
        super().__init__(file)
        self._with_modules = with_modules
        self.storages: dict[str, Storage] = {}
        self._tensors = 0
        self._names = {
            ("collections", "OrderedDict"): _make_ordered_dict,
            ("torch._utils", "_rebuild_tensor"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v3"): self._tensor_of_type,
            ("torch._utils", "_rebuild_parameter"): _first_argument,
            ("torch._utils", "_rebuild_parameter_with_state"): _first_argument,
            ("torch.nn.modules.container", "ParameterDict"): PickledParameters,
            ("torch", "Size"): tuple,
            ("__builtin__", "set"): _members,
            ("builtins", "set"): _members,
            ("torch.storage", "UntypedStorage"): "U8",
            **dict.fromkeys(INERT_NAMES, Inert),
            **{("torch", name): dtype for name, dtype in (_STORAGES | _DTYPES).items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of an allowed name. Raises UnpicklingError for all others."""
        if self._with_modules and module.partition(".")[0] == _SCRIPT:
            return ScriptModule
        if (module, name) not in self._names:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not known to be safe")
        return self._names[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Return the storage of a persistent id `("storage", type, key, device, elements[, view])`.

        A view is `(key, offset, elements)`. For `("module", class, file, code)`, return the class; the code is ignored.
        """
        if isinstance(pid, tuple) and pid[:1] == ("module",) and len(pid) > 1:
            return pid[1]
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":  # noqa: PLR2004
            raise pickle.UnpicklingError("it has a persistent id that is not a storage")
        dtype, key, count = pid[1], pid[2], pid[4]
        if not (isinstance(dtype, str) and dtype in ITEM_BYTES and isinstance(key, str) and _is_count(count)):
            raise pickle.UnpicklingError("it has a storage without valid type, key or size")
        storage = Storage(key, dtype, count)
        if self.storages.setdefault(key, storage) != storage:
            raise pickle.UnpicklingError(f"its storage {key} has two sizes or types")
        view = pid[5] if len(pid) > 5 else None  # noqa: PLR2004
        return storage if view is None else _view(storage, view)

    def _tensor(self, storage: object, offset: object, shape: object, strides: object, *_: object) -> StoredTensor:
        return self._build_tensor(storage, offset, shape, strides, None)

    def _tensor_of_type(
        self, storage: object, offset: object, shape: object, strides: object, _grad: object, _hooks: object, dtype: object, *_: object
    ) -> StoredTensor:  # fmt: skip
        return self._build_tensor(storage, offset, shape, strides, dtype)

    def _build_tensor(
        self, storage: object, offset: object, shape: object, strides: object, dtype: object
    ) -> StoredTensor:
        """Return a tensor after checking that all its elements are within the storage."""
        self._tensors += 1
        if self._tensors > MAX_TENSORS:
            raise pickle.UnpicklingError("it declares too many tensors")
        if not isinstance(storage, Storage) or not _is_count(offset):
            raise pickle.UnpicklingError("it has a tensor without a storage")
        if not (_are_counts(shape) and _are_counts(strides) and len(shape) == len(strides)):
            raise pickle.UnpicklingError("it has a tensor without a valid shape")
        kind = storage.dtype if dtype is None else dtype
        if not isinstance(kind, str) or kind not in ITEM_BYTES:
            raise pickle.UnpicklingError("it has a tensor without a valid dtype")
        available = storage.count * ITEM_BYTES[storage.dtype] // ITEM_BYTES[kind]
        elements = math.prod(shape)
        end = (
            offset + 1 + sum((length - 1) * step for length, step in zip(shape, strides, strict=True))
            if elements
            else 0
        )
        if max(end, elements) > available:
            raise pickle.UnpicklingError(f"a tensor of shape {list(shape)} exceeds its storage of {available} elements")
        return StoredTensor(kind, tuple(shape), tuple(strides), offset, storage)


def _set_items(reader: Unpickler) -> None:
    items = reader.pop_mark()
    _set_entries(reader.stack[-1], items[::2], items[1::2])


def _set_item(reader: Unpickler) -> None:
    value, key = reader.stack.pop(), reader.stack.pop()
    _set_entries(reader.stack[-1], [key], [value])


def _make_dict(reader: Unpickler) -> None:
    items = reader.pop_mark()
    mapping: dict[Any, Any] = {}
    _set_entries(mapping, items[::2], items[1::2])
    reader.append(mapping)


def _make_set(_reader: Unpickler) -> None:
    raise pickle.UnpicklingError("it contains a set, which is not allowed")


def _build(reader: Unpickler) -> None:
    """Copy the entries of a ParameterDict or ScriptModule; the attributes of any other object are ignored."""
    state = reader.stack.pop()
    target = reader.stack[-1]
    if not isinstance(target, dict | Inert):
        raise pickle.UnpicklingError("it sets attributes of an object that has none")
    if isinstance(target, ScriptModule) and isinstance(state, dict):
        _set_entries(target, state.keys(), state.values())
    entries = state.get("_parameters") if isinstance(state, dict) else None
    if isinstance(target, PickledParameters) and isinstance(entries, dict):
        target.update(entries)


def _skip_frame(reader: Unpickler) -> None:
    """Skip the frame header; buffering a frame would bypass the read limits."""
    reader.read(8)


def _refuse_buffer(_reader: Unpickler) -> None:
    raise pickle.UnpicklingError("it contains a buffer, which is not allowed")


for _code, _action in (
    (pickle.SETITEMS, _set_items),
    (pickle.SETITEM, _set_item),
    (pickle.DICT, _make_dict),
    (pickle.EMPTY_SET, _make_set),
    (pickle.ADDITEMS, _make_set),
    (pickle.FROZENSET, _make_set),
    (pickle.BUILD, _build),
    (pickle.FRAME, _skip_frame),
    (pickle.BYTEARRAY8, _refuse_buffer),
    (pickle.NEXT_BUFFER, _refuse_buffer),
):
    Unpickler.dispatch[_code[0]] = _action


def _set_entries(target: object, keys: Iterable[Any], values: Iterable[Any]) -> None:
    if not isinstance(target, dict):
        raise pickle.UnpicklingError("it sets items of an object that is not a mapping")
    for key, value in zip(keys, values, strict=True):
        if not isinstance(key, _PLAIN_KEYS) and key is not Inert:
            raise pickle.UnpicklingError("it has a mapping with keys that are not plain values")
        target[key] = value


def _make_ordered_dict(pairs: object = ()) -> OrderedDict[Any, Any]:
    mapping: OrderedDict[Any, Any] = OrderedDict()
    entries: list[Any] = list(pairs) if isinstance(pairs, list | tuple) else [None]
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in entries):  # noqa: PLR2004
        raise pickle.UnpicklingError("it has a mapping that is not built from pairs")
    _set_entries(mapping, [pair[0] for pair in entries], [pair[1] for pair in entries])
    return mapping


def _members(values: object = ()) -> object:
    """Return a set's members unchanged: they are never used, and hashing them could take forever."""
    return values


def _first_argument(value: object, *_: object) -> object:
    return value


def _view(storage: Storage, view: object) -> Storage:
    if not isinstance(view, tuple) or len(view) != 3 or not _is_count(view[1]) or not _is_count(view[2]):  # noqa: PLR2004
        raise pickle.UnpicklingError("it has a view without valid offset or size")
    if view[1] + view[2] > storage.count:
        raise pickle.UnpicklingError("it has a view that exceeds its storage")
    return Storage(storage.key, storage.dtype, view[2], view[1])


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _are_counts(value: object) -> TypeGuard[Sequence[int]]:
    return isinstance(value, list | tuple) and len(value) <= MAX_DIMENSIONS and all(map(_is_count, value))
