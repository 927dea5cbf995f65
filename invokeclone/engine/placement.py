"""Placement of a model's weights: in RAM, on the device, or partly there with the rest streamed on demand.

The cache decides which models are placed on the device.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from invokeclone.engine.devices import DeviceMemory
from invokeclone.engine.weight_stream import WeightStream


def nbytes(tensor: torch.Tensor) -> int:
    """Return the size of the tensor's values in bytes."""
    return int(tensor.numel() * tensor.element_size())


def size_of(model: Any) -> int:
    """Return the size of a model's tensors in bytes; 0 for objects without tensors, such as a tokenizer."""
    if isinstance(model, nn.Module):
        return sum(nbytes(tensor) for tensor in (*model.parameters(), *model.buffers()))
    if isinstance(model, torch.Tensor):
        return nbytes(model)
    if isinstance(model, dict):
        return sum(size_of(value) for value in model.values())
    calculate = getattr(model, "calc_size", None)
    return int(calculate()) if callable(calculate) else 0


@dataclass
class PlacementUnit:
    """A module that computes with its own weights, mostly including its submodules: the smallest unit that can be moved.

    Modules with a common weight, such as the tied embeddings of text encoders, are one unit.
    """

    modules: list[nn.Module]
    tensors: list[torch.Tensor]
    in_ram: list[torch.Tensor | None] = field(default_factory=list)
    """The tensors' values in RAM, None for those only on the device; empty while the unit is in RAM."""
    hooks: list[RemovableHandle] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return sum(nbytes(tensor) for tensor in self.tensors)

    @property
    def on_device(self) -> bool:
        """Whether the weights are permanently on the device."""
        return bool(self.in_ram)

    def absorb(self, other: "PlacementUnit") -> None:
        """Add the modules and tensors of a unit that this one does not have."""
        for target, source in ((self.modules, other.modules), (self.tensors, other.tensors)):
            target.extend(item for item in source if all(item is not present for present in target))


_CONTAINER_SHARE = 0.05
"""Largest share of its weights that a container of modules owns directly; others may use the weights of their submodules."""


def _tensors(module: nn.Module, *, recurse: bool = True) -> list[torch.Tensor]:
    return [*module.parameters(recurse), *module.buffers(recurse)]


def _units(module: nn.Module) -> Iterator[PlacementUnit]:
    """Split a model at the modules that own weights directly, which may also use the weights of their submodules.

    A container, which owns few weights itself, such as a token for padding, is one unit without its submodules.
    """
    direct = _tensors(module, recurse=False)
    if direct:
        tensors = _tensors(module)
        if sum(map(nbytes, direct)) > _CONTAINER_SHARE * sum(map(nbytes, tensors)):
            yield PlacementUnit([module], tensors)
            return
        yield PlacementUnit([module], direct)
    for child in module.children():
        yield from _units(child)


def _join(units: Iterable[PlacementUnit]) -> list[PlacementUnit]:
    """Return the units with those that have a tensor in common as one."""
    joined: dict[int, PlacementUnit] = {}
    owners: dict[int, PlacementUnit] = {}
    for unit in units:
        shared = {id(owner): owner for tensor in unit.tensors if (owner := owners.get(id(tensor)))}
        target = next(iter(shared.values()), unit)
        for other in (*list(shared.values())[1:], unit):
            if other is not target:
                target.absorb(other)
                joined.pop(id(other), None)
        joined[id(target)] = target
        owners |= {id(tensor): target for tensor in target.tensors}
    return list(joined.values())


class Placement:
    """The weights of one model and their location. Not thread-safe; guarded by the cache's lock."""

    def __init__(self, model: nn.Module, memory: DeviceMemory, *, keep_ram_copy: bool = True) -> None:
        """Take over `model`, whose weights are in RAM.

        With `keep_ram_copy` they stay there too, so that `leave` copies nothing.
        """
        self.model = model
        self._memory = memory
        self._keep_ram_copy = keep_ram_copy
        self._units = _join(_units(model))
        self._stream = WeightStream(memory, self._units)
        self.size = sum(unit.size for unit in self._units)

    @property
    def on_device(self) -> int:
        """Bytes permanently on the device."""
        return sum(unit.size for unit in self._units if unit.on_device)

    @property
    def in_ram(self) -> int:
        """Bytes in RAM."""
        return self.size if self._keep_ram_copy else self.size - self.on_device

    @property
    def largest_unit(self) -> int:
        """Bytes that streaming takes on the device at least."""
        return max((unit.size for unit in self._units), default=0)

    @property
    def complete(self) -> bool:
        """Whether the whole model is on the device."""
        return all(unit.on_device for unit in self._units)

    def enter(self, budget: int | None = None) -> None:
        """Move the model to the device, up to `budget` bytes (None: all); the rest is streamed when it computes.

        Modules are placed in order, so the first ones, from which a model derives its device, are there
        permanently. Raises torch.OutOfMemoryError with the model back in RAM.
        """
        left = self.size if budget is None else budget
        left -= self.on_device
        try:
            for unit in self._units:
                if unit.on_device:
                    continue
                if unit.size <= left or budget is None:
                    left -= unit.size
                    self._unhook(unit)
                    self._move_to_device(unit)
                elif not unit.hooks:
                    self._hook(unit)
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Move the model back to RAM and release the device's memory."""
        self._stream.clear()
        for unit in self._units:
            self._unhook(unit)
            if unit.on_device:
                with torch.inference_mode(mode=False):
                    for tensor, copy in zip(unit.tensors, unit.in_ram, strict=True):
                        tensor.data = self._memory.to_ram(tensor.data) if copy is None else copy
                unit.in_ram = []

    def abandon(self) -> None:
        """Remove the hooks, whose closures would keep the weights alive until the next garbage collection."""
        self._stream.clear()
        for unit in self._units:
            self._unhook(unit)
            unit.in_ram = []

    def _move_to_device(self, unit: PlacementUnit) -> None:
        with torch.inference_mode(mode=False):
            for tensor in unit.tensors:
                original = tensor.data
                tensor.data = self._memory.to_device(original)
                unit.in_ram.append(original if self._keep_ram_copy else None)

    def _hook(self, unit: PlacementUnit) -> None:
        """Make the unit fetch its weights before each computation and drop them afterwards."""
        waiting: list[torch.Tensor] = []
        running: list[nn.Module] = []

        def fetch(module: nn.Module, _inputs: Any) -> None:
            running.append(module)
            if len(running) > 1:  # called by another module of the unit
                return
            copies = self._stream.fetch(unit)
            with torch.inference_mode(mode=False):
                for tensor, copied in zip(unit.tensors, copies, strict=True):
                    waiting.append(tensor.data)
                    tensor.data = copied

        def drop(_module: nn.Module, _inputs: Any, _output: Any) -> None:
            running.pop()
            if running:
                return
            with torch.inference_mode(mode=False):
                for tensor, original in zip(unit.tensors, waiting, strict=False):
                    tensor.data = original
            if waiting:
                self._stream.end_use()
            waiting.clear()

        for module in unit.modules:
            unit.hooks += [
                module.register_forward_pre_hook(fetch),
                module.register_forward_hook(drop, always_call=True),
            ]

    @staticmethod
    def _unhook(unit: PlacementUnit) -> None:
        for hook in unit.hooks:
            hook.remove()
        unit.hooks = []
