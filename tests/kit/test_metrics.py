"""Numbers of metrics: what is counted, what travels between processes, and what of it is believed."""

from typing import Any

import orjson
import pytest

from invokeclone.kit.metrics import Metric, MetricValues

COUNTER = Metric("a_total", "counter", "", ("device",))
GAUGE = Metric("b", "gauge", "")
TIMES = Metric("c_seconds", "histogram", "", ("kind",), (1, 10))
SUMS = Metric("d_seconds", "summary", "", ("kind",))
METRICS = (COUNTER, GAUGE, TIMES, SUMS)


def some() -> MetricValues:
    numbers = MetricValues(METRICS)
    numbers.add(COUNTER, "cpu")
    numbers.add(COUNTER, "cpu", amount=2)
    numbers.set(GAUGE, value=5)
    for seconds in (0.5, 1, 1.5, 11):
        numbers.observe(TIMES, "x", value=seconds)
    numbers.observe(SUMS, "x", value=3)
    numbers.observe_many(SUMS, "x", total=4, count=2)
    return numbers


def test_series_of_each_metric_kind() -> None:
    numbers = some()
    assert numbers.series(COUNTER) == {("cpu",): [3]}
    assert numbers.series(GAUGE) == {(): [5]}
    assert numbers.series(TIMES) == {("x",): [14, 2, 1, 1]}
    assert numbers.series(SUMS) == {("x",): [7, 3]}


def test_values_round_trip_through_json() -> None:
    sent = orjson.loads(orjson.dumps(some().to_json()))
    assert MetricValues.read(METRICS, sent).to_json() == some().to_json()


def test_include_adds_values_and_optionally_gauges() -> None:
    numbers = some()
    numbers.include(some())
    numbers.include(some(), gauges=False)
    assert numbers.series(COUNTER) == {("cpu",): [9]}
    assert numbers.series(GAUGE) == {(): [10]}
    assert numbers.series(TIMES) == {("x",): [42, 6, 3, 3]}


def test_returned_series_are_copies() -> None:
    numbers = some()
    before = numbers.series(COUNTER)
    numbers.add(COUNTER, "cpu")
    assert before == {("cpu",): [3]}


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {"other_total": [[["cpu"], [1]]]},
        {"a_total": None},
        {"a_total": [None, [], [["cpu"]], [["cpu"], 1], ["cpu", [1]], [["cpu", "gpu"], [1]], [[1], [1]]]},
        {"a_total": [[["cpu"], [1, 2]], [["cpu"], ["1"]], [["cpu"], [None]], [["cpu"], [True]], [["cpu"], [[]]]]},
        {"a_total": [[["cpu"], [float("nan")]], [["cpu"], [float("inf")]]]},
        {"c_seconds": [[["x"], [1, 2, 3]]]},
    ],
)
def test_malformed_values_are_ignored(data: Any) -> None:
    assert MetricValues.read(METRICS, data).to_json() == {}
