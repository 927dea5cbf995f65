"""The invocation cache: node outputs by user and inputs.

A key is a digest of the user id and the node's JSON without its id. The cache is in memory only.
"""

import collections
import hashlib
import re
import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from invokeclone.graph.invocations.invocation import BaseInvocationOutput

_STRINGS = re.compile(rb'"([^"\\]{8,})"')
"""JSON strings that may be names of images, tensors or conditionings."""


def key_of(node_id: str, node_json: bytes, user_id: str = "system") -> bytes:
    """Return the cache key of a user's node from its JSON; nodes that differ only in their id have the same key.

    Users do not share outputs, as these may name private images.
    """
    neutral = node_json.replace(b'"id":"%b"' % node_id.encode(), b'"id":""', 1)
    return hashlib.blake2b(b"%b\0%b" % (user_id.encode(), neutral), digest_size=20).digest()


@dataclass(frozen=True, slots=True)
class _Entry:
    output: BaseInvocationOutput
    names: frozenset[bytes]


class InvocationCache:
    """An LRU cache of node outputs. Thread-safe."""

    def __init__(self, max_size: int) -> None:
        """Keep at most `max_size` outputs; 0 disables the cache permanently."""
        self._max_size = max_size
        self._entries: collections.OrderedDict[bytes, _Entry] = collections.OrderedDict()
        self._names: collections.Counter[bytes] = collections.Counter()
        self._enabled = max_size > 0
        self._hits = 0
        self._misses = 0
        self._requests = [0, 0]
        self._lock = threading.Lock()

    @property
    def enabled(self) -> bool:
        """Whether the cache is enabled."""
        return self._enabled

    def get(self, key: bytes) -> BaseInvocationOutput | None:
        """Return the output of `key` and mark it as the most recently used; counts a hit or a miss unless disabled."""
        with self._lock:
            if not self._enabled:
                return None
            entry = self._entries.get(key)
            if entry is None:
                self._misses += 1
                self._requests[1] += 1
                return None
            self._hits += 1
            self._requests[0] += 1
            self._entries.move_to_end(key)
            return entry.output

    def save(self, key: bytes, output: BaseInvocationOutput, output_json: bytes) -> None:
        """Add `output`, evicting the least recently used ones; the names that it mentions come from `output_json`."""
        with self._lock:
            if not self._enabled or key in self._entries:
                return
            entry = _Entry(output, frozenset(_STRINGS.findall(output_json)))
            self._entries[key] = entry
            self._names.update(entry.names)
            while len(self._entries) > self._max_size:
                self._unname(self._entries.popitem(last=False)[1])

    def forget(self, names: Collection[str]) -> None:
        """Remove all outputs that mention one of `names`, which were deleted."""
        encoded_names = {name.encode() for name in names}
        with self._lock:
            for key in [key for key, entry in self._entries.items() if not encoded_names.isdisjoint(entry.names)]:
                self._unname(self._entries.pop(key))

    def mentions(self, name: str) -> bool:
        """Return whether a cached output mentions `name`, whose object must be kept then."""
        return name.encode() in self._names

    def clear(self) -> None:
        """Remove all outputs and reset the counts."""
        with self._lock:
            self._entries.clear()
            self._names.clear()
            self._hits = self._misses = 0

    def enable(self) -> None:
        """Enable the cache; does nothing if its size is 0."""
        with self._lock:
            self._enabled = self._max_size > 0

    def disable(self) -> None:
        """Disable lookups, storing and counting; cached outputs stay."""
        with self._lock:
            self._enabled = False

    def requests(self) -> tuple[int, int]:
        """Return hits and misses since the process started; `clear` does not reset them."""
        with self._lock:
            hits, misses = self._requests
            return hits, misses

    def status(self) -> dict[str, Any]:
        """Return size, hits, misses, enabled and max_size in the API's format."""
        with self._lock:
            return {
                "size": len(self._entries),
                "hits": self._hits,
                "misses": self._misses,
                "enabled": self._enabled,
                "max_size": self._max_size,
            }

    def _unname(self, entry: _Entry) -> None:
        for name in entry.names:
            if self._names[name] > 1:
                self._names[name] -= 1
            else:
                del self._names[name]
