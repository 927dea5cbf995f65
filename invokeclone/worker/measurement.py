"""Metrics of a worker process, sent to the server with heartbeats as totals since the process started."""

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
"""Base label of items without a model."""


class Measurement:
    """The metrics of one worker process. Thread-safe; never blocks on a node or a model load."""

    def __init__(self, device: str, cache: InvocationCache, engine: Engine) -> None:
        """Collect metrics for `device` and its caches."""
        self._device = device
        self._cache = cache
        self._engine = engine
        self._numbers = MetricValues(metrics.METRICS)
        self._lock = threading.Lock()

    def add(self, session: Session, status: str) -> None:
        """Count a run of a session and its nodes; a session that waits for a called workflow has not ended."""
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
        """Return all counts so far and current memory use, in the format of `MetricValues.read`."""
        device, models = self._device, self._engine.usage()
        hits, misses = self._cache.requests()
        vram = 0
        with contextlib.suppress(RuntimeError):  # the GPU has failed, which its items report
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
    """Return the base of the first main model that a session's nodes used, else of any model with a specific base."""
    configs = [record.config for record in session.models.values()]
    for config in sorted(configs, key=lambda config: config.type != ModelType.Main):
        if config.base not in (BaseModelType.Any, BaseModelType.Unknown):
            return str(BaseModelType(config.base).value)
    return NO_MODEL
