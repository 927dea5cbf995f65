"""Rendering of metric values in the Prometheus text format."""

import gzip
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from invokeclone.kit.metrics import Metric, MetricValues

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
COMPRESSION_LEVEL = 1
"""Gzip level; the lowest is enough for such repetitive text."""

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | SummaryMetricFamily


class _Numbers(Collector):
    """Adapter from `MetricValues` to the Prometheus client's collector interface."""

    def __init__(self, numbers: MetricValues) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Family]:
        """Yield all metrics, including those without series."""
        for metric in self._numbers.metrics.values():
            yield _family(metric, self._numbers)


def _family(metric: Metric, numbers: MetricValues) -> Family:
    series = numbers.series(metric)
    match metric.kind:
        case "counter":
            counter = CounterMetricFamily(metric.name, metric.text, labels=metric.labels)
            for labels, (value,) in series.items():
                counter.add_metric(labels, value)
            return counter
        case "gauge":
            gauge = GaugeMetricFamily(metric.name, metric.text, labels=metric.labels)
            for labels, (value,) in series.items():
                gauge.add_metric(labels, value)
            return gauge
        case "summary":
            summary = SummaryMetricFamily(metric.name, metric.text, labels=metric.labels)
            for labels, (total, count) in series.items():
                summary.add_metric(labels, int(count), total)
            return summary
        case "histogram":
            histogram = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
            for labels, (total, *counts) in series.items():
                histogram.add_metric(labels, _cumulative(metric, counts), total)
            return histogram


def _cumulative(metric: Metric, counts: list[float]) -> list[tuple[str, float]]:
    """Return the upper limit and the cumulative count of each bucket."""
    limits = [*(str(float(limit)) for limit in metric.buckets), "+Inf"]
    return [(limit, sum(counts[: index + 1])) for index, limit in enumerate(limits)]


def render(numbers: MetricValues, *, compress: bool) -> bytes:
    """Return `numbers` as text, gzipped if `compress`. Blocks for some 50 ms on a long text: call it in a thread."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(numbers))
    text = generate_latest(registry)
    return gzip.compress(text, COMPRESSION_LEVEL, mtime=0) if compress else text
