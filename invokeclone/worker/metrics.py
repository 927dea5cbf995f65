"""The metrics that workers count, one table for them and for the server, which adds up what their heartbeats carry."""

from invokeclone.kit.metrics import Metric

ITEM_SECONDS = Metric(
    "invokeclone_item_duration_seconds",
    "histogram",
    "Seconds that a worker ran an item, by how it ended and the base of its main model (`none` without models).",
    ("device", "status", "base"),
    (1, 5, 15, 60, 300, 1800),
)
NODE_SECONDS = Metric(
    "invokeclone_node_duration_seconds",
    "summary",
    "Seconds that nodes of a type ran; those that failed or whose result was cached are not counted.",
    ("device", "type"),
)
NODE_HITS = Metric("invokeclone_node_cache_hits_total", "counter", "Nodes whose result was cached.", ("device",))
NODE_MISSES = Metric(
    "invokeclone_node_cache_misses_total", "counter", "Nodes whose result could be cached and was not.", ("device",)
)
MODEL_HITS = Metric(
    "invokeclone_model_cache_hits_total", "counter", "Models, or parts of one, that were in the cache.", ("device",)
)
MODEL_MISSES = Metric(
    "invokeclone_model_cache_misses_total", "counter", "Models, or parts of one, that were loaded.", ("device",)
)
MODEL_BYTES = Metric(
    "invokeclone_model_cache_bytes",
    "gauge",
    "Bytes of cached models, in `ram` and on the `device`, where that has a memory of its own.",
    ("device", "memory"),
)
MEMORY_BYTES = Metric(
    "invokeclone_worker_memory_bytes",
    "gauge",
    "Bytes that a worker holds: of `ram`, and in tensors on the `device` (CUDA).",
    ("device", "memory"),
)
METRICS = (
    ITEM_SECONDS,
    NODE_SECONDS,
    NODE_HITS,
    NODE_MISSES,
    MODEL_HITS,
    MODEL_MISSES,
    MODEL_BYTES,
    MEMORY_BYTES,
)
