"""`/metrics`: what it says after requests and runs, who may read it, and that the documents name just what there is."""

import asyncio
import contextlib
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message, Receive, Scope, Send

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.metrics import MetricValues
from invokeclone.kit.resources import Resources
from invokeclone.queue import service
from invokeclone.queue.batches import Batch
from invokeclone.server.metrics import exposition, figures, router
from invokeclone.server.metrics.figures import METRICS
from invokeclone.server.metrics.requests import RequestTimer, RequestTimes
from invokeclone.server.supervision.supervisor import Supervisor
from invokeclone.server.supervision.workers import Worker
from invokeclone.users import keys
from invokeclone.worker import metrics as worker_metrics
from tests.accounts import account
from tests.server.test_app import FAKE, running

DOCS = Path(__file__).parents[2] / "docs"
BATCH = {"graph": {"nodes": {"a": {"id": "a", "type": "add"}}}, "runs": 3}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(client: httpx.AsyncClient) -> "Scrape":
    answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return Scrape(answer.text)


class Scrape:
    """A scrape, read by the library's parser; that no series is there twice is checked."""

    def __init__(self, text: str) -> None:
        self.samples: Samples = {}
        self.names: set[str] = set()
        for family in text_string_to_metric_families(text):
            self.names.add(family.name)
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.samples
                self.samples[key] = sample.value

    def get(self, name: str, **labels: str) -> float | None:
        return self.samples.get((name, frozenset(labels.items())))

    def labels(self, name: str, label: str) -> set[str]:
        return {dict(labels)[label] for series, labels in self.samples if series == name}


COUNT = "invokeclone_http_request_duration_seconds_count"


async def test_requests_are_counted_by_the_template_of_their_route(settings: Settings) -> None:
    async with running(settings) as (_app, client):
        for path in ("a", "b", "c%2Fd"):
            await client.get(f"/api/v1/images/i/{path}")
        for path in ("/", "/health", "/openai/v1/models", "/nothing/1", "/nothing/2", "/ws/x", "/api/v1//health"):
            await client.get(path)
        await client.request("BREW", "/health")
        await client.get("/health", headers={"host": "evil.example"})
        await client.post("/api/v1/queue/default/enqueue_batch", json={"batch": BATCH})
        metrics = await scrape(client)
    image = "/api/v1/images/i/{image_name}"
    assert metrics.get(COUNT, method="GET", route=image, status="4xx") == 2
    assert metrics.get(COUNT, method="GET", route="/health", status="2xx") == 1
    assert metrics.get(COUNT, method="GET", route="/api/v1/health", status="2xx") == 1
    assert metrics.get(COUNT, method="other", route="/health", status="4xx") == 1
    assert metrics.get(COUNT, method="GET", route="/", status="2xx") == 1
    assert metrics.get(COUNT, method="GET", route="/ws", status="4xx") == 1
    assert metrics.get(COUNT, method="GET", route="/openai/v1/models", status="2xx") == 1
    assert metrics.get(COUNT, method="GET", route="unmatched", status="4xx") == 4
    assert metrics.get(COUNT, method="POST", route="/api/v1/queue/{queue_id}/enqueue_batch", status="2xx") == 1
    assert not [route for route in metrics.labels(COUNT, "route") if "nothing" in route or "%2F" in route]


def test_buckets_are_cumulative_and_sums_are_present() -> None:
    times = RequestTimes(FastAPI(openapi_url=None))
    for seconds in (0.005, 0.02, 3, 100):
        times.note({"method": "GET"}, 200, seconds)
    metrics = Scrape(exposition.render(times.numbers, compress=False).decode())
    labels = {"method": "GET", "route": "unmatched", "status": "2xx"}
    name = "invokeclone_http_request_duration_seconds"
    limits = {"0.005": 1, "0.025": 2, "0.1": 2, "0.5": 2, "2.5": 2, "10.0": 3, "+Inf": 4}
    assert {limit: metrics.get(f"{name}_bucket", le=limit, **labels) for limit in limits} == limits
    assert metrics.get(f"{name}_sum", **labels) == pytest.approx(103.025)


@pytest.mark.parametrize(("fails", "status"), [(RuntimeError, "5xx"), (asyncio.CancelledError, "none"), (None, "none")])
async def test_requests_without_an_answer_are_counted_too(fails: type[BaseException] | None, status: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if fails is not None:
            raise fails

    async def nothing(*_: Any) -> Message:
        return {"type": "http.disconnect"}

    times = RequestTimes(FastAPI(openapi_url=None))
    with pytest.raises(fails) if fails else contextlib.nullcontext():
        await RequestTimer(app, times)({"type": "http", "method": "GET"}, nothing, nothing)
    assert list(times.numbers.series(times.numbers.metrics[COUNT.removesuffix("_count")])) == [
        ("GET", "unmatched", status)
    ]


async def test_templates_are_found_below_a_prefix(settings: Settings) -> None:
    async with running(settings.model_copy(update={"base_url": "/invoke"})) as (_app, client):
        await client.get("/invoke/api/v1/app/version")
        metrics = await scrape(client)
    assert metrics.get(COUNT, method="GET", route="/api/v1/app/version", status="2xx") == 1


async def test_queues_are_read_from_the_database(settings: Settings) -> None:
    async with running(settings) as (app, client):
        before = await scrape(client)
        await service.enqueue(app.services.get(Resources), "other", Batch.model_validate(BATCH))
        after = await scrape(client)
    assert before.labels("invokeclone_queue_items", "queue") == {"default"}
    assert after.get("invokeclone_queue_items", queue="other", status="pending") == 3
    assert after.get("invokeclone_queue_items", queue="default", status="pending") == 0
    assert after.get("invokeclone_queue_oldest_pending_age_seconds", queue="default") == 0
    assert after.get("invokeclone_queue_oldest_pending_age_seconds", queue="other") is not None


def beat(items: float, memory: float) -> dict[str, Any]:
    numbers = MetricValues(worker_metrics.METRICS)
    for _ in range(int(items)):
        numbers.observe(worker_metrics.ITEM_SECONDS, "cpu", "completed", "sd-1", value=2)
    numbers.set(worker_metrics.NODE_HITS, "cpu", value=items)
    numbers.set(worker_metrics.MEMORY_BYTES, "cpu", "ram", value=memory)
    return {"kind": "heartbeat", "item_id": None, "metrics": json.loads(json.dumps(numbers.to_json()))}


def of(*workers: Worker) -> Scrape:
    numbers = MetricValues(METRICS)
    figures.add_workers(numbers, workers)
    return Scrape(exposition.render(numbers, compress=False).decode())


async def test_counters_do_not_decrease_when_a_worker_restarts() -> None:
    worker = Worker("cpu")
    scrapes = []
    for message in (beat(2, 10), beat(3, 20), None, beat(1, 5), None):
        if message is None:
            worker.mark_lost("it died")
        else:
            worker.on_heartbeat(message)
        scrapes.append(of(worker))
    labels = {"device": "cpu", "status": "completed", "base": "sd-1"}
    name = "invokeclone_item_duration_seconds"
    assert [metrics.get(f"{name}_count", **labels) for metrics in scrapes] == [2, 3, 3, 4, 4]
    assert [metrics.get(f"{name}_sum", **labels) for metrics in scrapes] == [4, 6, 6, 8, 8]
    assert [metrics.get("invokeclone_node_cache_hits_total", device="cpu") for metrics in scrapes] == [2, 3, 3, 4, 4]
    memory = [metrics.get("invokeclone_worker_memory_bytes", device="cpu", memory="ram") for metrics in scrapes]
    assert memory == [10, 20, None, 5, None]


async def test_workers_of_one_device_share_a_series() -> None:
    workers = [Worker("cpu"), Worker("cpu")]
    for worker in workers:
        worker.on_heartbeat(beat(2, 10))
    assert of(*workers).get("invokeclone_node_cache_hits_total", device="cpu") == 4


async def test_restarts_and_readiness_of_a_worker(settings: Settings) -> None:
    async with running(settings, FAKE) as (app, client):
        supervisor = app.services.get(Supervisor)
        await supervisor.ready(30)
        before = await scrape(client)
        supervisor.workers[0].kill("a test")
        async with asyncio.timeout(30):
            while not (supervisor.workers[0].restarts and supervisor.workers[0].ready):
                await asyncio.sleep(0.01)
        after = await scrape(client)
    for metrics, restarts in ((before, 0), (after, 1)):
        assert metrics.get("invokeclone_worker_restarts_total", device="cpu") == restarts
        assert metrics.get("invokeclone_worker_ready", device="cpu") == 1


async def test_metrics_are_compressed_for_clients_accepting_gzip(settings: Settings) -> None:
    async with running(settings) as (_app, client):
        plain = await client.get("/metrics", headers={"accept-encoding": "identity"})
        async with client.stream("GET", "/metrics", headers={"accept-encoding": "gzip"}) as packed:
            raw = b"".join([part async for part in packed.aiter_raw()])
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw).startswith(plain.content[:1000])
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_metrics_can_be_disabled(settings: Settings) -> None:
    async with running(settings.model_copy(update={"metrics": False})) as (app, client):
        assert (await client.get("/metrics")).status_code == 404
        assert RequestTimer not in [middleware.cls for middleware in app.user_middleware]


async def test_metrics_route_is_not_in_the_schema() -> None:
    assert [route.include_in_schema for route in router.routes if isinstance(route, APIRoute)] == [False]


async def test_admin_key_reads_the_metrics(settings: Settings) -> None:
    async with running(settings.model_copy(update={"multiuser": True})) as (app, client):
        database = app.services.get(Resources).database
        statuses = []
        for is_admin in (True, False):
            user = await account(database, f"user{is_admin}", is_admin=is_admin)
            key = await keys.make(database, user.user_id, "prometheus")
            answer = await client.get("/metrics", headers={"authorization": f"Bearer {key}"})
            statuses.append(answer.status_code)
        assert statuses == [200, 403]
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers={"host": "evil.example"})).status_code == 421


# The documents


def metric_of_series(name: str) -> str:
    """Return the metric that a series in a query belongs to."""
    histograms = [metric.name for metric in METRICS if metric.kind in ("histogram", "summary")]
    plain = re.sub(r"_(bucket|sum|count)$", "", name)
    return plain if plain in histograms else name


def test_documented_table_matches_the_metrics() -> None:
    rows = re.findall(
        r"^\| `(invokeclone_\w+)` \| (\w+) \| ([^|]*) \| ([^|]+) \|$", (DOCS / "metrics.md").read_text(), re.MULTILINE
    )
    assert rows == [
        (metric.name, metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.text)
        for metric in METRICS
    ]


def test_names_follow_prometheus_conventions() -> None:
    for metric in METRICS:
        assert metric.name.startswith("invokeclone_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.buckets == tuple(sorted(metric.buckets))
        assert bool(metric.buckets) == (metric.kind == "histogram")
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def queries(dashboard: Any) -> Iterator[str]:
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    named = {metric_of_series(name) for query in queries(dashboard) for name in re.findall(r"invokeclone_\w+", query)}
    assert named == {metric.name for metric in METRICS}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert {(variable["type"], variable["name"]) for variable in dashboard["templating"]["list"]} == {
        ("datasource", "datasource")
    }
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
