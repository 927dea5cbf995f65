"""Definitions of the worker metrics, used by the workers and by the server, which sums their values."""

from invokeclone.kit.metrics import Metric

ITEM_SECONDS = Metric(
    "invokeclone_item_duration_seconds",
    "histogram",
    "Run time of queue items in seconds, by final status and base of the main model (`none` without models).",
    ("device", "status", "base"),
    (1, 5, 15, 60, 300, 1800),
)
NODE_SECONDS = Metric(
    "invokeclone_node_duration_seconds",
    "summary",
    "Run time of nodes in seconds, by node type, without failed and cached ones.",
    ("device", "type"),
)
NODE_HITS = Metric(
    "invokeclone_node_cache_hits_total", "counter", "Nodes whose result was in the invocation cache.", ("device",)
)
NODE_MISSES = Metric(
    "invokeclone_node_cache_misses_total",
    "counter",
    "Cacheable nodes whose result was not in the invocation cache.",
    ("device",),
)
MODEL_HITS = Metric(
    "invokeclone_model_cache_hits_total", "counter", "Models and submodels that were in the model cache.", ("device",)
)
MODEL_MISSES = Metric(
    "invokeclone_model_cache_misses_total", "counter", "Models and submodels that were loaded from disk.", ("device",)
)
MODEL_BYTES = Metric(
    "invokeclone_model_cache_bytes",
    "gauge",
    "Bytes of cached models, in `ram` and on a `device` with its own memory.",
    ("device", "memory"),
)
MEMORY_BYTES = Metric(
    "invokeclone_worker_memory_bytes",
    "gauge",
    "Bytes used by a worker: resident `ram`, and tensors on the `device` (CUDA).",
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
