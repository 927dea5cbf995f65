"""Model cache of one device: loads each model once, moves it to the device for use, evicts models when memory is short.

Does not depend on loaders or model kinds: the caller passes the function that loads a model.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil
import torch
from torch import nn

from invokeclone.engine.devices import DeviceMemory, is_out_of_memory
from invokeclone.engine.placement import Placement, size_of
from invokeclone.graph.checkpoints import acquire_lock
from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings

GB = 2**30
logger = log.get("engine.cache")


@dataclass
class ModelCacheCounters:
    """Counters of cache activity since they were created; sizes in bytes."""

    hits: int = 0
    misses: int = 0
    high_watermark: int = 0
    in_cache: int = 0
    cleared: int = 0
    cache_size: int = 0
    loaded_model_sizes: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the counters under the names of the API."""
        return asdict(self)


@dataclass
class CacheEntry:
    """One cached model.

    `placement` is None for objects without weights to move (tokenizers, schedulers, models on the CPU).
    """

    key: str
    model: Any
    size: int
    placement: Placement | None = None
    on_cpu: bool = False
    """Whether the model computes on the CPU, whatever the cache's device."""
    locks: int = 0
    used_at: float = 0.0

    @property
    def on_device(self) -> int:
        """Bytes on a separate device."""
        return self.placement.on_device if self.placement else 0

    @property
    def in_ram(self) -> int:
        """Bytes in RAM."""
        return self.placement.in_ram if self.placement else self.size


class ModelCache:
    """LRU cache of models in RAM and on one device. Thread-safe.

    A locked model (in use) is never dropped or moved. Unlocked models stay on the device until the memory is
    needed.
    """

    def __init__(
        self,
        settings: Settings,
        device: torch.device | str,
        memory: DeviceMemory | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create an empty cache for `device`, with the limits of the settings."""
        self.settings = settings
        self.memory = memory or DeviceMemory(device)
        self.device = self.memory.device
        self.stats = ModelCacheCounters()
        self._hits = 0
        self._misses = 0
        self._working = int(settings.device_working_mem_gb * GB)
        self._clock = clock
        self._entries: OrderedDict[str, CacheEntry] = OrderedDict()
        self._lock = threading.RLock()
        self.ram_limit = self._choose_ram_limit()

    def get(self, key: str, load: Callable[[], Any], size: int = 0, *, on_cpu: bool = False) -> CacheEntry:
        """Return the model under `key` (`model key[:submodel]`), calling `load` if it is not cached.

        `size` is an estimate in bytes, such as the size of the model's files; that much RAM is freed before
        loading. A model loaded with `on_cpu` never moves to the device. Exceptions of `load` propagate.
        """
        with acquire_lock(self._lock):
            entry = self._entries.get(key)
            if entry is None:
                self.stats.misses += 1
                self._misses += 1
                with self._log_memory(f"loading {key}"):
                    entry = self._load(key, load, size, on_cpu=on_cpu)
            else:
                self.stats.hits += 1
                self._hits += 1
                self._entries.move_to_end(key)
            entry.used_at = self._clock()
            self.stats.loaded_model_sizes[key] = entry.size
            self._count()
            return entry

    @contextmanager
    def hold(self, entry: CacheEntry, working_memory: int | None = None) -> Iterator[Any]:
        """Hold the model on the device inside the block.

        `working_memory` is the memory that its computation needs in bytes, None for the default. Raises
        torch.OutOfMemoryError when it does not fit even with every other model moved out.
        """
        self.lock(entry, working_memory)
        try:
            yield entry.model
        finally:
            self.unlock(entry)

    def lock(self, entry: CacheEntry, working_memory: int | None = None) -> None:
        """Bring the model to the device and keep it there until `unlock`. Calls nest."""
        with acquire_lock(self._lock):
            entry.locks += 1
            try:
                if entry.placement is not None and not entry.placement.complete:
                    with self._log_memory(f"moving {entry.key} to {self.device}"):
                        self._move_to_device(entry, entry.placement, max(self._working, working_memory or 0))
            except BaseException:
                entry.locks -= 1
                raise

    def unlock(self, entry: CacheEntry) -> None:
        """Release the model. It stays on the device until the memory is needed."""
        with self._lock:
            entry.locks -= 1
            entry.used_at = self._clock()

    def drop(self, key: str) -> int:
        """Drop a model and its submodels, for example after its record changed, and return how many were dropped.

        Models in use are released when their last user unlocks them.
        """
        with self._lock:
            entries = [e for e in self._entries.values() if e.key == key or e.key.startswith(f"{key}:")]
            for entry in entries:
                self._forget(entry)
            return len(entries)

    def clear(self) -> int:
        """Drop every model that is not in use and return how many were dropped."""
        with self._lock:
            entries = [entry for entry in self._entries.values() if not entry.locks]
            for entry in entries:
                self._forget(entry)
            self.memory.empty()
            return len(entries)

    def free_device(self) -> bool:
        """Move every model that is not in use off the device, and reserve twice as much for computation from now on.

        At most half of the device's memory is reserved. Returns whether there is a separate device. Call it after a
        computation ran out of memory.
        """
        if not self.memory.separate:
            return False
        with self._lock:
            self._offload(self.device_used)
            self.memory.empty()
            self._working = max(self._working, min(2 * self._working, self.memory.total() // 2))
        return True

    def expire(self) -> int:
        """Drop all models if none was used for `model_cache_keep_alive_min` minutes, and return how many.

        Call it periodically.
        """
        minutes = self.settings.model_cache_keep_alive_min
        with self._lock:
            newest = max((entry.used_at for entry in self._entries.values()), default=None)
            busy = any(entry.locks for entry in self._entries.values())
            if not minutes or newest is None or busy or self._clock() - newest < minutes * 60:
                return 0
            return self.clear()

    def new_stats(self) -> ModelCacheCounters:
        """Start new counters, as for a new session, and return them."""
        with self._lock:
            self.stats = ModelCacheCounters()
            self._count()
            return self.stats

    def keys(self) -> list[str]:
        """Return the cached keys, least recently used first, without waiting for a running load."""
        return list(self._entries)  # a single bytecode operation, so no other thread interleaves

    def usage(self) -> tuple[int, int, int, int]:
        """Return total hits and misses, and bytes in RAM and on the device; does not wait for a running load."""
        entries = list(self._entries.values())  # as in `keys`
        in_ram, on_device = sum(entry.in_ram for entry in entries), sum(entry.on_device for entry in entries)
        return self._hits, self._misses, in_ram, on_device

    @property
    def ram_used(self) -> int:
        """Bytes of models in RAM."""
        return sum(entry.in_ram for entry in self._entries.values())

    @property
    def device_used(self) -> int:
        """Bytes of models on the device."""
        return sum(entry.on_device for entry in self._entries.values())

    @contextmanager
    def _log_memory(self, operation: str) -> Iterator[None]:
        """Log the process's memory before and after the block, if the settings ask for it."""
        if not self.settings.log_memory_usage:
            yield
            return
        before = self._process_memory()
        try:
            yield
        finally:
            pairs = zip(self._process_memory().items(), before.values(), strict=True)
            summary = ", ".join(f"{name} {old / GB:.2f} -> {new / GB:.2f} GB" for (name, new), old in pairs)
            logger.info("%s: %s", operation, summary)

    def _process_memory(self) -> dict[str, int]:
        """Return the bytes that the process holds in RAM, and in VRAM on a separate device."""
        ram = {"RAM": int(psutil.Process().memory_info().rss)}
        return ram | {"VRAM": self.memory.in_use()} if self.memory.separate else ram

    def _load(self, key: str, load: Callable[[], Any], size: int, *, on_cpu: bool) -> CacheEntry:
        self._free_ram(size)
        try:
            model = load()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._offload(self.device_used)
            self.memory.empty()
            model = load()
        entry = CacheEntry(key, model, size_of(model), on_cpu=on_cpu)
        if isinstance(model, nn.Module) and self.memory.separate and not on_cpu:
            entry.placement = Placement(model, self.memory, keep_ram_copy=self.settings.keep_ram_copy_of_weights)
        self._free_ram(entry.in_ram)
        self._entries[key] = entry
        return entry

    def _free_ram(self, needed: int) -> None:
        """Drop least recently used, unlocked models until `needed` bytes fit into RAM or none is left."""
        for entry in list(self._entries.values()):
            if self.ram_used + needed <= self.ram_limit:
                return
            if not entry.locks and entry.in_ram:
                self._forget(entry)

    def _move_to_device(self, entry: CacheEntry, placement: Placement, working_memory: int) -> None:
        missing = placement.size - placement.on_device
        self._offload(missing - self._device_headroom(working_memory))
        headroom = self._device_headroom(working_memory)
        partly = missing > headroom and self.settings.enable_partial_loading
        try:
            placement.enter(placement.on_device + self._resident_budget(placement, headroom) if partly else None)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("out of memory while moving %s to %s: offloading the other models", entry.key, self.device)
            self._offload(self.device_used)
            self.memory.empty()
            budget = self._resident_budget(placement, self._device_headroom(working_memory))
            placement.enter(budget if self.settings.enable_partial_loading else None)

    @staticmethod
    def _resident_budget(placement: Placement, headroom: int) -> int:
        """Return the bytes for the part of a model that stays on the device; beside it, the largest unit is streamed."""
        return max(headroom - placement.largest_unit, 0)

    def _device_headroom(self, working_memory: int) -> int:
        """Return how many more bytes of models may be moved to the device."""
        if self.settings.max_cache_vram_gb is not None:
            return int(self.settings.max_cache_vram_gb * GB) - working_memory - self.device_used
        return self.memory.free() - working_memory

    def _offload(self, needed: int) -> None:
        """Move unlocked models off the device, smallest first, until `needed` bytes are free or none is left."""
        idle = [entry for entry in self._entries.values() if not entry.locks and entry.placement and entry.on_device]
        moved = False
        for entry in sorted(idle, key=lambda entry: entry.on_device):
            if needed <= 0:
                break
            needed -= entry.on_device
            if entry.placement:
                entry.placement.leave()
            moved = True
        if moved:
            self.memory.empty()

    def _forget(self, entry: CacheEntry) -> None:
        self._entries.pop(entry.key, None)
        if entry.placement and not entry.locks:
            entry.placement.abandon()
        self.stats.cleared += 1
        self._count()

    def _count(self) -> None:
        self.stats.in_cache = len(self._entries)
        self.stats.high_watermark = max(self.stats.high_watermark, self.ram_used)
        self.stats.cache_size = self.ram_limit

    def _choose_ram_limit(self) -> int:
        """Return the configured limit, else half of the RAM minus 2 GB.

        The default is at most the device's memory without the working memory, and at least 4 GB.
        """
        if self.settings.max_cache_ram_gb is not None:
            return int(self.settings.max_cache_ram_gb * GB)
        upper_limit = self.memory.total() - self._working if self.memory.separate else 32 * GB
        return max(4 * GB, min(int(psutil.virtual_memory().total // 2 - 2 * GB), upper_limit))
