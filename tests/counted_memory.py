"""A pretended device with little memory."""

import weakref

import torch

from invokeclone.engine.devices import DeviceMemory

MB = 2**20


class FakeMemory(DeviceMemory):
    """A device of some bytes; its tensors are copies in RAM that are counted until they go."""

    def __init__(self, capacity: int) -> None:
        super().__init__("cpu")
        self.capacity = capacity
        self.taken = 0
        self.emptied = 0

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
        copy = tensor.clone()
        weakref.finalize(copy.untyped_storage(), self._give, size)
        return copy

    def to_ram(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone()

    def _give(self, size: int) -> None:
        self.taken -= size

    def empty(self) -> None:
        self.emptied += 1
