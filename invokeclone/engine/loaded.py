"""What a node gets when it asks for a model: something to enter, that holds the model on the device meanwhile.

It knows the cache and the record it was loaded from; it refuses to know how loading went.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from invokeclone.engine.cache import CacheEntry, ModelCache


class CachedModelWithoutConfig:
    """A model that has no record, as one that a node loaded from a file.

    `with loaded as model:` holds it on the device. Entering may be repeated and nested.
    """

    def __init__(self, entry: CacheEntry, cache: ModelCache) -> None:
        self._entry = entry
        self._cache = cache

    @property
    def model(self) -> Any:
        """The model, wherever its weights are just now."""
        return self._entry.model

    @property
    def device(self) -> torch.device:
        """The device it computes on once entered."""
        return self._cache.device

    def __enter__(self) -> Any:
        self._cache.lock(self._entry)
        return self._entry.model

    def __exit__(self, *details: object) -> None:
        self._cache.unlock(self._entry)

    @contextmanager
    def model_on_device(self, working_mem_bytes: int | None = None) -> Iterator[tuple[dict[str, Any] | None, Any]]:
        """Hold it on the device, with `working_mem_bytes` beside it; yields its state dict (None for what has none) and it.

        The state dict's tensors are the model's own: read them, never change them.
        """
        with self._cache.hold(self._entry, working_mem_bytes) as model:
            yield (model.state_dict() if isinstance(model, nn.Module) else None, model)


class CachedModel(CachedModelWithoutConfig):
    """A model with the record it was loaded by."""

    def __init__(self, config: Any, entry: CacheEntry, cache: ModelCache) -> None:
        super().__init__(entry, cache)
        self.config = config


def device_of(loaded: Any, model: nn.Module) -> torch.device:
    """Return where a model computes: what its LoadedModel says, or where its first weights are, for one from elsewhere."""
    device = getattr(loaded, "device", None)
    return device if isinstance(device, torch.device) else next(model.parameters()).device
