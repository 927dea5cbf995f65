"""Loaded models as nodes receive them: context managers that hold the model on the device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from invokeclone.engine.cache import CacheEntry, ModelCache
from invokeclone.engine.devices import CPU_DEVICE


class CachedModelWithoutConfig:
    """A model without a record, such as one that a node loaded from a file.

    `with loaded as model:` holds it on the device. It is reentrant.
    """

    def __init__(self, entry: CacheEntry, cache: ModelCache) -> None:
        self._entry = entry
        self._cache = cache

    @property
    def model(self) -> Any:
        """The model, wherever its weights are at the moment."""
        return self._entry.model

    @property
    def device(self) -> torch.device:
        """The device on which the model computes inside the `with` block."""
        return CPU_DEVICE if self._entry.on_cpu else self._cache.device

    def __enter__(self) -> Any:
        self._cache.lock(self._entry)
        return self._entry.model

    def __exit__(self, *details: object) -> None:
        self._cache.unlock(self._entry)

    @contextmanager
    def model_on_device(self, working_mem_bytes: int | None = None) -> Iterator[tuple[dict[str, Any] | None, Any]]:
        """Hold the model on the device with `working_mem_bytes` free.

        Yields its state dict, None for models without weights, and the model. The tensors of the state dict are
        the model's own and must not be modified.
        """
        with self._cache.hold(self._entry, working_mem_bytes) as model:
            yield (model.state_dict() if isinstance(model, nn.Module) else None, model)


class CachedModel(CachedModelWithoutConfig):
    """A model with the record it was loaded from."""

    def __init__(self, config: Any, entry: CacheEntry, cache: ModelCache) -> None:
        super().__init__(entry, cache)
        self.config = config


def device_of(loaded: Any, model: nn.Module) -> torch.device:
    """Return the device on which a model computes, by its LoadedModel or, if loaded elsewhere, its first weights."""
    device = getattr(loaded, "device", None)
    return device if isinstance(device, torch.device) else next(model.parameters()).device
