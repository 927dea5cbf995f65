"""Which models are being worked on: two operations on one model at once are refused instead of mixed up."""

import asyncio
import contextlib
from collections.abc import Iterator

from invokeclone.models.errors import ModelBusy


class Guard:
    """Keys in use, and the lock between whoever puts models into place and whoever removes what nobody owns.

    One for the server's life.
    """

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self.placement_lock = asyncio.Lock()

    def keys_in_use(self) -> frozenset[str]:
        """Return the keys of the models that are held now."""
        return frozenset(self._keys)

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold the model `key`; raises ModelBusy when somebody holds it already."""
        if key in self._keys:
            raise ModelBusy(f"another operation on model {key} is going on")
        self._keys.add(key)
        try:
            yield
        finally:
            self._keys.discard(key)
