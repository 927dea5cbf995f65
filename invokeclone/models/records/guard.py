"""Locks of models: a second concurrent operation on the same model is refused."""

import asyncio
import contextlib
from collections.abc import Iterator

from invokeclone.models.errors import ModelBusy


class Guard:
    """The locked model keys, and the lock between the placement of models and the removal of orphans.

    There is one instance per server.
    """

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self.placement_lock = asyncio.Lock()

    def keys_in_use(self) -> frozenset[str]:
        """Return the keys of the models that are locked."""
        return frozenset(self._keys)

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Lock the model `key`. Raises ModelBusy if it is locked already."""
        if key in self._keys:
            raise ModelBusy(f"another operation on model {key} is in progress; try again later")
        self._keys.add(key)
        try:
            yield
        finally:
            self._keys.discard(key)
