"""The worker inside an engine's process: it joins a real server with a fake worker process."""

import asyncio
import sys
from pathlib import Path

import pytest

from invokeclone.cluster.host import TOKEN_VARIABLE, WorkerHost
from tests.server.joined.conftest import HERE, Cluster, Machine, until


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


@pytest.fixture
def host(cluster: Cluster, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerHost:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    command = ("env", f"JOINED_TEST_FOLDER={machine.folder}", sys.executable, "-S", str(HERE / "fake_worker.py"))
    return WorkerHost(cluster.url, "ray-ab-1", device="cpu", root=tmp_path / "node", command=command)


async def test_a_worker_joins_runs_an_item_and_is_drained(cluster: Cluster, machine: Machine, host: WorkerHost) -> None:
    assert host.state() == "new"
    name = host.start(cluster.token)
    assert name.endswith("-ray-ab-1")
    assert host.start("another") == name  # it runs already
    await until(lambda: host.state() == "joined")
    first, second = await cluster.enqueue(2)
    await until(machine.noted("claim"))
    assert (await cluster.row(first))["device"] == f"{name}/cpu"
    host.stop(60)
    await until(machine.noted("drain"))
    machine.go()
    assert (await cluster.ended(first))["status"] == "completed"
    await until(lambda: host.state() == "stopped")
    assert (await cluster.row(second))["status"] == "pending"


async def test_the_nodes_own_token_goes_first(
    cluster: Cluster, machine: Machine, host: WorkerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, f"{cluster.token}\n")  # as read from a file
    host.start("icw_of_the_command")
    await until(lambda: host.state() == "joined")
    await until(machine.noted("start"))
    host.stop(0)
    await until(lambda: host.state() == "stopped")


async def test_a_refusal_is_a_state(cluster: Cluster, host: WorkerHost) -> None:
    host.start("icw_" + "a" * 43)
    await until(lambda: host.state() not in ("starting", "joined"))
    assert host.state().startswith("refused: ")
    assert "wrong, expired or revoked" in host.state()


async def test_what_this_node_cannot_do_is_a_state(cluster: Cluster, host: WorkerHost, tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "invokeai.yaml").write_text("schema_version: 4.0.3\nlog_level: loud\n")
    host.start(cluster.token)
    await until(lambda: host.state() != "starting")
    assert host.state().startswith("failed: ")
    assert "log_level" in host.state()


def test_a_worker_that_never_started_is_stopped() -> None:
    host = WorkerHost("http://box", "ray-ab-2", device="cpu")
    host.stop(0)
    assert host.state() == "stopped"


async def test_without_a_token_nothing_is_started(host: WorkerHost) -> None:
    host.start(None)
    async with asyncio.timeout(20):
        while not host.state().startswith("refused: "):
            await asyncio.sleep(0.01)
    assert TOKEN_VARIABLE in host.state()
