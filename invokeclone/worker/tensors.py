"""Storage of tensors and conditionings that nodes pass to later nodes: in memory, spilled to disk over a budget.

Finds tensors inside dataclasses, lists, tuples and dicts. Only tensors are written to disk (safetensors, no pickle);
the objects around them stay in memory, so that no file can load code. This module does not import torch unless tensors
are stored.
"""

import collections
import contextlib
import copy
import dataclasses
import shutil
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from invokeclone.kit import log
from invokeclone.kit.errors import NotFound
from invokeclone.kit.files.storage import make_folder, remove_file

_log = log.get("worker.tensors")


class StoredObjectNotFound(NotFound):
    """The tensor or conditioning is not, or no longer, stored in this worker."""


@dataclasses.dataclass(slots=True)
class _Slot:
    """Placeholder of a tensor that is on disk."""

    index: int


@dataclasses.dataclass(slots=True)
class _Entry:
    value: Any
    size: int
    on_disk: bool = False


class TensorStore:
    """Objects that contain tensors, by name. Thread-safe."""

    def __init__(self, folder: Path, budget: int) -> None:
        """Keep up to `budget` bytes of tensors in memory and the others in `folder`, which no other process uses."""
        self._folder = folder
        self._budget = budget
        self._entries: collections.OrderedDict[str, _Entry] = collections.OrderedDict()
        self._in_memory = 0
        self._lock = threading.RLock()

    def save(self, value: Any, prefix: str) -> str:
        """Store a copy of `value` on the CPU and return its name: `prefix` and a UUID."""
        name = f"{prefix}_{uuid.uuid4()}"
        tensors: list[Any] = []
        stored_value = _map_tensors(value, lambda tensor: _copy_to_cpu(tensor, tensors))
        entry = _Entry(stored_value, sum(tensor.nbytes for tensor in tensors))
        with self._lock:
            self._entries[name] = entry
            self._in_memory += entry.size
            self._spill_excess()
        return name

    def load(self, name: str) -> Any:
        """Return a copy of the object stored as `name`; raises StoredObjectNotFound."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is None:
                raise StoredObjectNotFound(f"{name} is not stored in this worker; run the node that creates it again")
            self._entries.move_to_end(name)
            if entry.on_disk:
                tensors = self._read(name)
                return _map_slots(entry.value, tensors)
            return _map_tensors(entry.value, lambda tensor: tensor.clone())

    def keep_only(self, is_needed: Callable[[str], bool]) -> int:
        """Remove all objects whose name is not needed according to `is_needed`; return how many were removed."""
        with self._lock:
            unneeded = [name for name in self._entries if not is_needed(name)]
            for name in unneeded:
                entry = self._entries.pop(name)
                if entry.on_disk:
                    remove_file(self._path(name))
                else:
                    self._in_memory -= entry.size
        return len(unneeded)

    def close(self) -> None:
        """Remove all objects and the folder."""
        with self._lock:
            self._entries.clear()
            self._in_memory = 0
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def folder(self) -> Path:
        """The folder of this process, removed by `close`."""
        return self._folder

    @property
    def size(self) -> int:
        """Bytes of tensors in memory."""
        return self._in_memory

    def __len__(self) -> int:
        """Return the number of stored objects, in memory or on disk."""
        return len(self._entries)

    def _spill_excess(self) -> None:
        """Write the least recently used objects to disk until the budget is met; the newest always stays in memory."""
        if self._in_memory <= self._budget:
            return
        for name, entry in list(self._entries.items())[:-1]:
            if self._in_memory <= self._budget:
                return
            if not entry.on_disk and entry.size and not self._spill(name, entry):
                return

    def _spill(self, name: str, entry: _Entry) -> bool:
        from safetensors.torch import save_file  # imports torch, so only when tensors are stored

        tensors: list[Any] = []

        def replace_by_slot(tensor: Any) -> _Slot:
            tensors.append(tensor)
            return _Slot(len(tensors) - 1)

        value = _map_tensors(entry.value, replace_by_slot)
        try:
            make_folder(self._folder)
            save_file({str(index): tensor.contiguous() for index, tensor in enumerate(tensors)}, self._path(name))
        except (OSError, ValueError, RuntimeError) as error:  # disk full, or a dtype that safetensors does not support
            _log.warning("%s stays in memory because it could not be written to disk: %s", name, error)
            with contextlib.suppress(OSError):
                remove_file(self._path(name))
            return False
        entry.value, entry.on_disk = value, True
        self._in_memory -= entry.size
        return True

    def _read(self, name: str) -> dict[str, Any]:
        from safetensors.torch import load_file

        try:
            tensors: dict[str, Any] = load_file(self._path(name))
        except FileNotFoundError as error:
            raise StoredObjectNotFound(f"the file of {name} is missing in {self._folder}") from error
        return tensors

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"


def _copy_to_cpu(tensor: Any, copies: list[Any]) -> Any:
    cpu_copy = tensor.detach().to("cpu", copy=True)
    copies.append(cpu_copy)
    return cpu_copy


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and type(value) is torch.Tensor


def _map_tensors(value: Any, change: Callable[[Any], Any]) -> Any:
    """Copy `value` with each tensor replaced by `change(tensor)`; a tensor that occurs twice is changed twice."""
    if _is_tensor(value):
        return change(value)
    return _map_inside(value, lambda inner: _map_tensors(inner, change))


def _map_slots(value: Any, tensors: dict[str, Any]) -> Any:
    if isinstance(value, _Slot):
        return tensors[str(value.index)]
    return _map_inside(value, lambda inner: _map_slots(inner, tensors))


def _map_inside(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, (str, int, float, bool, bytes)) or value is None:
        return value
    if type(value) is list:
        return [change(inner) for inner in value]
    if type(value) is tuple:
        return tuple(change(inner) for inner in value)
    if type(value) is dict:
        return {key: change(inner) for key, inner in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        result = copy.copy(value)
        for name in _attributes(value):
            object.__setattr__(result, name, change(getattr(value, name)))
        return result
    return copy.deepcopy(value)


def _attributes(value: Any) -> list[str]:
    """Return the names of a dataclass instance's fields, without unset ones."""
    return [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
