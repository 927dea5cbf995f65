"""Copies of weights that a model fetches to the device while it computes: the next unit's are copied during the current one's.

Units are expected in the order of the previous run of the model.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch

from invokeclone.engine.devices import DeviceMemory, PendingCopies, is_out_of_memory


class StreamedUnit(Protocol):
    """The tensors that are fetched together."""

    tensors: list[torch.Tensor]


class WeightStream:
    """The copies of one model's units: of the one that computes, and of the next."""

    def __init__(self, memory: DeviceMemory, units: Iterable[StreamedUnit]) -> None:
        """Copy `units`, which are in the order of the model's modules, to `memory`."""
        self._memory = memory
        self._order = {id(unit): number for number, unit in enumerate(units)}
        self._next: dict[int, StreamedUnit] = {}
        """The unit that followed each unit, by the id of the first."""
        self._last: StreamedUnit | None = None
        self._pending: tuple[StreamedUnit, PendingCopies] | None = None
        self._enabled = memory.copies_ahead

    def fetch(self, unit: StreamedUnit) -> Sequence[torch.Tensor]:
        """Return copies of the unit's tensors on the device, and begin to copy those of the next unit.

        Raises torch.OutOfMemoryError.
        """
        if not self._enabled:
            return self._copy(unit)
        pending, self._pending = self._pending, None
        copies = pending[1].wait() if pending is not None and pending[0] is unit else self._copy(unit)
        del pending  # of another unit than expected: it leaves the device
        if self._last is not None and self._order[id(unit)] > self._order[id(self._last)]:  # not the next run's first
            self._next[id(self._last)] = unit
        self._last = unit
        if (following := self._next.get(id(unit))) is not None:
            self._copy_ahead(following)
        return copies

    def end_use(self) -> None:
        """Note that the unit that computed has left the device."""
        if self._enabled:
            self._memory.mark_use()

    def clear(self) -> None:
        """Forget copies that were not used."""
        self._pending = self._last = None

    def _copy(self, unit: StreamedUnit) -> list[torch.Tensor]:
        with torch.inference_mode(mode=False):
            return [self._memory.to_device(tensor.data) for tensor in unit.tensors]

    def _copy_ahead(self, unit: StreamedUnit) -> None:
        """Begin to copy a unit; without memory for it, units are fetched one after the other from now on."""
        try:
            with torch.inference_mode(mode=False):
                self._pending = (unit, self._memory.start_copies([tensor.data for tensor in unit.tensors]))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._enabled, self._pending = False, None
