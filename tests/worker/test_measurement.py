"""What a worker counts, and that its heartbeats carry it."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType
from invokeclone.kit.metrics import Labels, Metric, MetricValues
from invokeclone.worker import metrics
from invokeclone.worker.engine import ModelCacheUsage
from invokeclone.worker.interfaces.context import make_context
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.link import ServerLink
from invokeclone.worker.measurement import Measurement, main_base
from invokeclone.worker.runner import SessionRunner

NODES = {"one": {"type": "toy_number", "value": 3}, "sum": {"type": "toy_add", "b": 4}}
EDGE = ("one.value", "sum.a")


def series(measurement: Measurement, metric: Metric) -> dict[Labels, list[float]]:
    return MetricValues.read(metrics.METRICS, orjson.loads(orjson.dumps(measurement.measure()))).series(metric)


@pytest.fixture
def measurement(tools: Tools) -> Measurement:
    return Measurement("cpu", tools.cache, tools.engine)


async def test_runs_and_nodes_are_counted_and_cached_nodes_are_hits(
    tools: Tools, make: Any, measurement: Measurement
) -> None:
    runner = SessionRunner(tools, make_context, report=measurement.add)
    for _ in range(2):
        await asyncio.to_thread(runner.run, make.item(NODES, EDGE), threading.Event())
    failing = make.item({"bad": {"type": "toy_fail"}})
    await asyncio.to_thread(runner.run, failing, threading.Event())
    items = series(measurement, metrics.ITEM_SECONDS)
    assert {labels: sum(numbers[1:]) for labels, numbers in items.items()} == {
        ("cpu", "completed", "none"): 2,
        ("cpu", "failed", "none"): 1,
    }
    nodes = series(measurement, metrics.NODE_SECONDS)
    assert {labels: count for labels, (_, count) in nodes.items()} == {("cpu", "toy_number"): 1, ("cpu", "toy_add"): 1}
    tools.cache.clear()
    assert series(measurement, metrics.NODE_HITS) == {("cpu",): [2]}
    assert series(measurement, metrics.NODE_MISSES)[("cpu",)][0] >= 2


async def test_waiting_run_is_not_counted_as_ended(measurement: Measurement, make: Any, tools: Tools) -> None:
    session: Any = SimpleNamespace(stats=SimpleNamespace(lines={}, elapsed=1.0), models={})
    measurement.add(session, "waiting")
    assert series(measurement, metrics.ITEM_SECONDS) == {}
    measurement.add(session, "canceled")
    assert list(series(measurement, metrics.ITEM_SECONDS)) == [("cpu", "canceled", "none")]


async def test_memory_and_models_are_measured(measurement: Measurement, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement._engine, "usage", lambda: ModelCacheUsage(1, 2, 3, 4))
    assert series(measurement, metrics.MODEL_HITS) == {("cpu",): [1]}
    assert series(measurement, metrics.MODEL_MISSES) == {("cpu",): [2]}
    assert series(measurement, metrics.MODEL_BYTES) == {("cpu", "ram"): [3], ("cpu", "device"): [4]}
    assert series(measurement, metrics.MEMORY_BYTES)[("cpu", "ram")][0] > 2**20


def model(kind: ModelType, base: BaseModelType) -> Any:
    return SimpleNamespace(config=SimpleNamespace(type=kind, base=base))


@pytest.mark.parametrize(
    ("models", "base"),
    [
        ([], "none"),
        ([model(ModelType.LoRA, BaseModelType.StableDiffusion2)], "sd-2"),
        (
            [model(ModelType.LoRA, BaseModelType.StableDiffusion2), model(ModelType.Main, BaseModelType.Flux)],
            "flux",
        ),
        ([model(ModelType.CLIPEmbed, BaseModelType.Any)], "none"),
    ],
)
def test_item_base_is_the_base_of_its_main_model(models: list[Any], base: str) -> None:
    session: Any = SimpleNamespace(models=dict(enumerate(models)))
    assert main_base(session) == base


def test_heartbeats_have_metrics_only_when_measured() -> None:
    sent: list[dict[str, Any]] = []
    writer: Any = SimpleNamespace(send=lambda line, **_: sent.append(orjson.loads(line)))
    link = ServerLink(writer)
    link.heartbeat(None)
    link.measure = lambda: {"a": 1}
    link.heartbeat(5)

    def breaks() -> Any:
        raise OSError("no figures")

    link.measure = breaks
    link.heartbeat(5)
    link.heartbeat(6)
    assert [message.get("metrics") for message in sent] == [None, {"a": 1}, None, None]
    assert [message["item_id"] for message in sent] == [None, 5, 5, 6]
