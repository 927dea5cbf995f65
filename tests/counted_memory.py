"""A pretended device with little memory."""

import weakref
from collections.abc import Sequence

import torch

from invokeclone.engine.devices import DeviceMemory, PendingCopies

MB = 2**20


class FakeMemory(DeviceMemory):
    """A device of some bytes; its tensors are copies in RAM that are counted until they go."""

    def __init__(self, capacity: int, *, copies_ahead: bool = False) -> None:
        super().__init__("cpu")
        self.capacity = capacity
        self.taken = 0
        self.most = 0
        """The most bytes that were taken at once."""
        self.emptied = 0
        self._ahead = copies_ahead

    @property
    def separate(self) -> bool:
        return True

    def total(self) -> int:
        return self.capacity

    def in_use(self) -> int:
        return self.taken

    def free(self) -> int:
        return self.capacity - self.taken

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        size = tensor.numel() * tensor.element_size()
        if size > self.free():
            raise torch.OutOfMemoryError("out of memory (pretended)")
        self.taken += size
        self.most = max(self.most, self.taken)
        copy = tensor.clone()
        weakref.finalize(copy.untyped_storage(), self._give, size)
        return copy

    @property
    def copies_ahead(self) -> bool:
        return self._ahead

    def start_copies(self, tensors: Sequence[torch.Tensor]) -> PendingCopies:
        return PendingCopies([self.to_device(tensor) for tensor in tensors])

    def mark_use(self) -> None:
        pass

    def peak(self) -> int:
        return self.most

    def reset_peak(self) -> None:
        self.most = self.taken

    def to_ram(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone()

    def _give(self, size: int) -> None:
        self.taken -= size

    def empty(self) -> None:
        self.emptied += 1
