"""The workers of a cluster with a fake engine: what is created, started, reported, replaced and stopped."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from invokeclone.cluster import crew as crew_module
from invokeclone.cluster.crew import ClusterError, Crew, Node, Unreachable, WorkerRefused, find_problem

ONE = [Node("10.0.0.1", cpus=4, gpus=2)]


class FakeHandle:
    """A worker that does what the test sets; it stops as soon as it is asked to, unless `stubborn`."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.placed = asyncio.Event()
        self.now = "new"
        self.failure: Unreachable | None = None
        self.stubborn = False
        self.calls: list[tuple[str, Any]] = []

    async def start(self, token: str | None) -> str:
        self.calls.append(("start", token))
        self.now = "joined"
        return f"box-{self.label}"

    async def state(self) -> str:
        await self.placed.wait()
        if self.failure is not None:
            raise self.failure
        return self.now

    async def stop(self, drain_s: float) -> None:
        self.calls.append(("stop", drain_s))
        if not (self.stubborn and drain_s):
            self.now = "stopped"

    def end(self) -> None:
        self.calls.append(("end", None))


class FakeEngine:
    def __init__(self) -> None:
        self.found = list(ONE)
        self.handles: list[FakeHandle] = []
        self.has_room = True

    async def nodes(self) -> list[Node]:
        return self.found

    def create(self, label: str) -> FakeHandle:
        self.handles.append(FakeHandle(label))
        if self.has_room:
            self.handles[-1].placed.set()
        return self.handles[-1]


class Bench:
    """A crew on a fake engine."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.lines: list[str] = []
        self.crew: Crew | None = None
        self.running: asyncio.Task[None] | None = None

    def start(self, **options: Any) -> None:
        values: dict[str, Any] = {"workers": "auto", "token": "t", "cpus": 1, "on_gpus": True, "poll_s": 0.005}
        self.crew = Crew(self.engine, say=self.lines.append, **values | options)
        self.running = asyncio.create_task(self.crew.run())

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)

    async def wait_for_line(self, number: int, state: str) -> None:
        await self.until(lambda: any(line.startswith(f"worker {number}") and state in line for line in self.lines))

    async def stopped(self, drain_s: float = 0.0) -> None:
        assert self.crew is not None
        assert self.running is not None
        self.crew.stop(drain_s)
        async with asyncio.timeout(20):
            await self.running


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(crew_module, "REPLACE_S", 0.02)
    bench = Bench()
    yield bench
    if bench.running is not None:
        bench.running.cancel()
        with contextlib.suppress(asyncio.CancelledError, WorkerRefused):
            await bench.running


async def test_auto_starts_a_worker_per_gpu_and_reports_each_state_once(bench: Bench) -> None:
    bench.start()
    await bench.wait_for_line(2, "joined")
    await bench.wait_for_line(1, "joined")
    first, second = bench.engine.handles
    assert first.calls == second.calls == [("start", "t")]
    await bench.stopped()
    assert [line.partition(": ")[2] for line in bench.lines if line.startswith("worker 1")] == [
        "waits for a GPU", "starting", "joined", "stopped",
    ]  # fmt: skip
    assert [name for name, _ in first.calls] == ["start", "stop", "end"]


@pytest.mark.parametrize(
    ("options", "number"),
    [({"cpus": 3}, 1), ({"on_gpus": False}, 4), ({"on_gpus": False, "cpus": 2}, 2), ({"workers": 3}, 3)],
)
async def test_the_number_of_workers(bench: Bench, options: dict[str, Any], number: int) -> None:
    bench.start(**options)
    await bench.wait_for_line(number, "joined")
    await bench.stopped()
    assert len(bench.engine.handles) == number


async def test_a_restarted_worker_is_started_again(bench: Bench) -> None:
    bench.start(workers=1)
    await bench.wait_for_line(1, "joined")
    (handle,) = bench.engine.handles
    handle.failure = Unreachable("its node has ended")
    await bench.wait_for_line(1, "is restarted: its node has ended")
    handle.now, handle.failure = "new", None
    await bench.until(lambda: handle.calls.count(("start", "t")) == 2)
    assert bench.engine.handles == [handle]


@pytest.mark.parametrize("cause", ["gone", "failed"])
async def test_a_worker_that_cannot_go_on_is_replaced(bench: Bench, cause: str) -> None:
    bench.start(workers=1)
    await bench.wait_for_line(1, "joined")
    (handle,) = bench.engine.handles
    if cause == "gone":
        handle.failure = Unreachable("killed", permanent=True)
    else:
        handle.now = "failed: no space"
    await bench.wait_for_line(2, "joined")
    assert handle.calls[-1] == ("end", None)


async def test_auto_follows_the_nodes(bench: Bench) -> None:
    bench.start()
    await bench.wait_for_line(2, "joined")
    bench.engine.found = [*ONE, Node("10.0.0.2", cpus=1, gpus=1)]
    await bench.wait_for_line(3, "joined")
    bench.engine.handles[2].failure = Unreachable("its node has ended")
    bench.engine.found = ONE
    await bench.wait_for_line(3, "removed")
    assert bench.engine.handles[2].calls[-1] == ("end", None)
    await bench.stopped()
    assert len(bench.engine.handles) == 3


@pytest.mark.parametrize(
    ("on_gpus", "line"), [(True, "no node has a GPU yet: --cpu"), (False, "no node has 8 CPUs yet")]
)
async def test_a_cluster_without_room_is_reported_once(bench: Bench, on_gpus: bool, line: str) -> None:
    bench.engine.found = [Node("10.0.0.1", cpus=4, gpus=0)]
    bench.start(on_gpus=on_gpus, cpus=8)
    await bench.until(lambda: bench.lines)
    bench.engine.found = [Node("10.0.0.1", cpus=8, gpus=1)]
    await bench.wait_for_line(1, "joined")
    await bench.stopped()
    assert [other for other in bench.lines if other.startswith(line)] == bench.lines[:1]


async def test_a_refused_worker_ends_the_command_and_stops_the_others(bench: Bench) -> None:
    bench.start()
    await bench.wait_for_line(1, "joined")
    await bench.wait_for_line(2, "joined")
    bench.engine.handles[1].now = "refused: the worker token is revoked"
    assert bench.running is not None
    with pytest.raises(WorkerRefused, match=r"worker 2 \(box-ray-.*-2\) is refused: the worker token is revoked"):
        await bench.running
    assert ("stop", 0.0) in bench.engine.handles[0].calls


async def test_a_second_stop_interrupts_the_running_items(bench: Bench) -> None:
    bench.start(workers=1)
    await bench.wait_for_line(1, "joined")
    (handle,) = bench.engine.handles
    handle.stubborn = True
    assert bench.crew is not None
    bench.crew.stop(60)
    await bench.until(lambda: ("stop", 60) in handle.calls)
    await bench.stopped(60)
    assert handle.calls[-2:] == [("stop", 0), ("end", None)]


async def test_workers_without_a_place_are_ended_at_once(bench: Bench) -> None:
    bench.engine.has_room = False
    bench.start(workers=1)
    await bench.wait_for_line(1, "waits for a GPU")
    await bench.stopped(60)
    assert bench.engine.handles[0].calls == [("end", None)]


@pytest.mark.parametrize(
    ("addresses", "local_url", "problem"),
    [
        (["10.0.0.1", "10.0.0.2"], False, None),
        (["127.0.0.1"], True, None),
        (["10.0.0.1", "10.0.0.1"], True, None),
        (["10.0.0.1", "127.0.0.1"], False, "the address 127.0.0.1, which others cannot reach"),
        (["10.0.0.1", "10.0.0.2"], True, "a loopback address, which workers on other nodes (10.0.0.1, 10.0.0.2)"),
    ],
)
def test_addresses(addresses: list[str], local_url: bool, problem: str | None) -> None:
    found = find_problem([Node(address, 1, 1) for address in addresses], local_url=local_url)
    assert found is None if problem is None else problem in (found or "")


async def test_addresses_are_checked_before_anything_is_created(bench: Bench) -> None:
    bench.engine.found = [Node("10.0.0.1", 1, 1), Node("10.0.0.2", 1, 1)]
    bench.start(local_url=True)
    assert bench.running is not None
    with pytest.raises(ClusterError, match="loopback"):
        await bench.running
    bench.running = None
    assert bench.engine.handles == []


async def test_a_cluster_that_does_not_answer_at_first_is_an_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> list[Node]:
        raise Unreachable("no route to host")

    monkeypatch.setattr(bench.engine, "nodes", fail)
    bench.start()
    assert bench.running is not None
    with pytest.raises(ClusterError, match=r"does not answer: no route to host\. Check that its head runs"):
        await bench.running
    bench.running = None


async def test_a_worker_that_cannot_be_created_is_created_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    create = bench.engine.create

    def fail(_label: str) -> FakeHandle:
        raise Unreachable("no route to host")

    monkeypatch.setattr(bench.engine, "create", fail)
    bench.start(workers=1)
    await bench.until(lambda: "the cluster does not answer: no route to host" in bench.lines)
    monkeypatch.setattr(bench.engine, "create", create)
    await bench.wait_for_line(1, "joined")
    await bench.stopped()
