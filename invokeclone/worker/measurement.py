"""Counts what a worker does, for `/metrics`. Heartbeats carry all of it to the server: the numbers since this process began."""

import contextlib
import threading
from typing import Any

from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType
from invokeclone.kit.metrics import MetricValues
from invokeclone.worker import metrics
from invokeclone.worker.cache import InvocationCache
from invokeclone.worker.engine import Engine
from invokeclone.worker.interfaces.tools import Session
from invokeclone.worker.stats import resident, vram_in_use

NO_MODEL = "none"
"""The base of an item that used no model."""


class Measurement:
    """The numbers of one worker process. Its methods may be called from any thread and never wait for a node or a load."""

    def __init__(self, device: str, cache: InvocationCache, engine: Engine) -> None:
        """Count for `device`, and measure these caches."""
        self._device = device
        self._cache = cache
        self._engine = engine
        self._numbers = MetricValues(metrics.METRICS)
        self._lock = threading.Lock()

    def add(self, session: Session, status: str) -> None:
        """Count a run of a session and its nodes; one that waits for a called workflow has not ended."""
        with self._lock:
            for node_type, line in session.stats.lines.items():
                if ran := line.calls - line.cached:
                    self._numbers.observe_many(
                        metrics.NODE_SECONDS, self._device, node_type, total=line.seconds, count=ran
                    )
            if status != "waiting":
                base = main_base(session)
                self._numbers.observe(metrics.ITEM_SECONDS, self._device, status, base, value=session.stats.elapsed)

    def measure(self) -> dict[str, Any]:
        """Return everything counted so far and what memory is in use now, as `Numbers.read` takes it."""
        device, models = self._device, self._engine.usage()
        hits, misses = self._cache.requests()
        vram = 0
        with contextlib.suppress(RuntimeError):  # of a GPU that has failed: its items say so
            vram = vram_in_use()
        with self._lock:
            numbers = self._numbers
            numbers.set(metrics.NODE_HITS, device, value=hits)
            numbers.set(metrics.NODE_MISSES, device, value=misses)
            numbers.set(metrics.MODEL_HITS, device, value=models.hits)
            numbers.set(metrics.MODEL_MISSES, device, value=models.misses)
            numbers.set(metrics.MODEL_BYTES, device, "ram", value=models.ram_bytes)
            numbers.set(metrics.MODEL_BYTES, device, "device", value=models.device_bytes)
            numbers.set(metrics.MEMORY_BYTES, device, "ram", value=resident())
            numbers.set(metrics.MEMORY_BYTES, device, "device", value=vram)
            return numbers.to_json()


def main_base(session: Session) -> str:
    """Return the base of the first main model that a session's nodes used, else of any model with a base of its own."""
    configs = [record.config for record in session.models.values()]
    for config in sorted(configs, key=lambda config: config.type != ModelType.Main):
        if config.base not in (BaseModelType.Any, BaseModelType.Unknown):
            return str(BaseModelType(config.base).value)
    return NO_MODEL
