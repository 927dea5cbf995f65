"""Metrics of a process by name and labels, and their transfer to another process."""

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["counter", "gauge", "summary", "histogram"]
Labels = tuple[str, ...]
MAX_SERIES = 10_000
MAX_LABEL = 500
"""Maximum number of series of a metric, and characters of a label, that another process may send."""


@dataclass(frozen=True)
class Metric:
    """A Prometheus metric. Its name ends with its unit, a counter's with `_total`."""

    name: str
    kind: Kind
    text: str
    """Description in one line."""
    labels: Labels = ()
    buckets: tuple[float, ...] = ()
    """Upper limits of a histogram's buckets, in ascending order, without infinity."""

    @property
    def width(self) -> int:
        """Numbers per series: one, or the sum and the count of each bucket (a summary has a single bucket)."""
        return 1 if self.kind in ("counter", "gauge") else len(self.buckets) + 2


class MetricValues:
    """Series of several metrics: a list of numbers per combination of labels. Not thread-safe: its owner guards it."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        """Create without series."""
        self.metrics = {metric.name: metric for metric in metrics}
        self._series: dict[str, dict[Labels, list[float]]] = {name: {} for name in self.metrics}

    def add(self, metric: Metric, *labels: str, amount: float = 1) -> None:
        """Add `amount` to a counter, or to a gauge that is the sum of several parts."""
        self._of(metric, labels)[0] += amount

    def set(self, metric: Metric, *labels: str, value: float) -> None:
        """Set the current value of a gauge, or of a counter that is maintained elsewhere."""
        self._of(metric, labels)[0] = value

    def observe(self, metric: Metric, *labels: str, value: float) -> None:
        """Record one observation in a histogram or a summary."""
        series = self._of(metric, labels)
        series[0] += value
        series[1 + bisect_left(metric.buckets, value)] += 1

    def observe_many(self, metric: Metric, *labels: str, total: float, count: int) -> None:
        """Record `count` observations with the sum `total` in a summary."""
        series = self._of(metric, labels)
        series[0] += total
        series[1] += count

    def series(self, metric: Metric) -> dict[Labels, list[float]]:
        """Return a copy of the series of `metric` by labels."""
        return {labels: list(numbers) for labels, numbers in self._series[metric.name].items()}

    def include(self, other: "MetricValues", *, gauges: bool = True) -> None:
        """Add the numbers of `other`, whose metrics are a subset of these; its gauges only if `gauges` is true."""
        for metric in other.metrics.values():
            if metric.kind == "gauge" and not gauges:
                continue
            for labels, numbers in other.series(metric).items():
                totals = self._of(metric, labels)
                for index, number in enumerate(numbers):
                    totals[index] += number

    def with_label(self, label: str, value: str) -> "MetricValues":
        """Return a copy in which `label` has `value` in all series."""
        copy = MetricValues(self.metrics.values())
        for metric in self.metrics.values():
            for labels, numbers in self.series(metric).items():
                renamed = [value if name == label else old for name, old in zip(metric.labels, labels, strict=True)]
                totals = copy._of(metric, tuple(renamed))
                for index, number in enumerate(numbers):
                    totals[index] += number
        return copy

    def to_json(self) -> dict[str, Any]:
        """Return every series as JSON data: by metric, pairs of labels and numbers."""
        return {
            name: [[labels, list(numbers)] for labels, numbers in series.items()]
            for name, series in self._series.items()
            if series
        }

    @classmethod
    def read(cls, metrics: Iterable[Metric], data: object) -> "MetricValues":
        """Return the values that another process sent with `to_json`.

        Unknown metrics and malformed series are left out.
        """
        numbers = cls(metrics)
        series_by_name = data if isinstance(data, dict) else {}
        for name, metric in numbers.metrics.items():
            series = series_by_name.get(name)
            for entry in series[:MAX_SERIES] if isinstance(series, list) else ():
                if _is_series(metric, entry):
                    numbers._series[name][tuple(entry[0])] = list(entry[1])
        return numbers

    def _of(self, metric: Metric, labels: Labels) -> list[float]:
        by_labels = self._series[metric.name]
        series = by_labels.get(labels)
        if series is None:
            series = by_labels[labels] = [0.0] * metric.width
        return series


def _is_series(metric: Metric, entry: object) -> bool:
    match entry:
        case [list(labels), list(numbers)]:
            return (
                len(labels) == len(metric.labels)
                and len(numbers) == metric.width
                and all(isinstance(label, str) and len(label) <= MAX_LABEL for label in labels)
                and all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
            )
        case _:
            return False
