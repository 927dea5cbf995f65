"""The invocation cache: outputs of earlier nodes by what went into them; it knows no node, only keys, outputs and names.

A key is a digest of the user and the node's JSON without its id. Everything lives in memory and ends with the process.
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

    Users share no outputs: the pictures that an output names are not for everybody.
    """
    neutral = node_json.replace(b'"id":"%b"' % node_id.encode(), b'"id":""', 1)
    return hashlib.blake2b(b"%b\0%b" % (user_id.encode(), neutral), digest_size=20).digest()


@dataclass(frozen=True, slots=True)
class _Entry:
    output: BaseInvocationOutput
    names: frozenset[bytes]


class InvocationCache:
    """An LRU of node outputs. All methods may be called from any thread."""

    def __init__(self, max_size: int) -> None:
        """Keep at most `max_size` outputs; 0 turns the cache off for good."""
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
        """Whether outputs are looked up and kept at all at present."""
        return self._enabled

    def get(self, key: bytes) -> BaseInvocationOutput | None:
        """Return the output kept under `key` and make it the newest; counts a hit or a miss unless disabled."""
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
        """Keep `output`; the oldest one goes when there are too many. `output_json` tells which names it mentions."""
        with self._lock:
            if not self._enabled or key in self._entries:
                return
            entry = _Entry(output, frozenset(_STRINGS.findall(output_json)))
            self._entries[key] = entry
            self._names.update(entry.names)
            while len(self._entries) > self._max_size:
                self._unname(self._entries.popitem(last=False)[1])

    def forget(self, names: Collection[str]) -> None:
        """Drop every output that mentions one of `names`, because what it names is gone."""
        encoded_names = {name.encode() for name in names}
        with self._lock:
            for key in [key for key, entry in self._entries.items() if not encoded_names.isdisjoint(entry.names)]:
                self._unname(self._entries.pop(key))

    def mentions(self, name: str) -> bool:
        """Tell whether a kept output mentions `name`, so that what it names must stay."""
        return name.encode() in self._names

    def clear(self) -> None:
        """Drop everything and count from zero."""
        with self._lock:
            self._entries.clear()
            self._names.clear()
            self._hits = self._misses = 0

    def enable(self) -> None:
        """Look outputs up and keep them from now on; without effect when the size is 0."""
        with self._lock:
            self._enabled = self._max_size > 0

    def disable(self) -> None:
        """Neither look up nor keep nor count from now on; what is kept stays."""
        with self._lock:
            self._enabled = False

    def requests(self) -> tuple[int, int]:
        """Return the hits and misses since the process began: `clear` does not reset them."""
        with self._lock:
            hits, misses = self._requests
            return hits, misses

    def status(self) -> dict[str, Any]:
        """Return size, hits, misses, enabled and max_size, as the API shows them."""
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
