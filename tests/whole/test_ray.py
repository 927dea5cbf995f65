"""`invokeclone cluster ray` on two local nodes of a real Ray cluster, whose GPUs are pretended. Needs the extra `ray`."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.server_process import PATIENCE, Server
from tests.whole.joined_machines import batch, make_token, write_pack
from tests.whole.ray_cluster import AUTH, RayCommand, RayNodes

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[RayNodes]:
    nodes = RayNodes(tmp_path, **AUTH)
    yield nodes
    nodes.close()


@pytest.fixture
def server(make_server: Callable[[], Server]) -> Server:
    server = make_server()
    write_pack(server.root)
    (server.root / "invokeai.yaml").write_text("schema_version: 4.0.3\ngeneration_devices: []\n")
    return server.start()


def joined(server: Server) -> list[dict[str, Any]]:
    return [worker for worker in server.client.get("/api/v1/workers/").json() if worker["connected"]]


def ray_processes(nodes: RayNodes) -> list[psutil.Process]:
    return psutil.Process(nodes.process.pid).children(recursive=True)


def running_on(server: Server, item_id: int) -> str | None:
    item = server.item(item_id)
    return item.get("device") if item["status"] == "in_progress" else None


def test_workers_follow_the_nodes(server: Server, nodes: RayNodes, tmp_path: Path) -> None:
    token = make_token(server)
    command = RayCommand(tmp_path, nodes.address, server.url, token, "--cpu", "--cpus", "2", **AUTH)
    try:
        server.wait_for(lambda: len(joined(server)) == 2, "two workers")
        items = server.enqueue(batch(4, seconds=1))
        assert {server.finished(item)["status"] for item in items} == {"completed"}
        assert len({server.item(item)["device"] for item in items}) == 2

        # the token is neither in command lines nor in what Ray tells of its actors
        for process in ray_processes(nodes):
            assert token not in " ".join(process.cmdline())
        state = nodes.do("actors")
        assert "WorkerHost" in state
        assert token not in state

        # … nor in Ray's logs
        logs = [path for path in Path(nodes.do("session")).rglob("*") if path.is_file()]
        assert [path for path in logs if "WorkerHost" in path.read_text("utf-8", "replace")]
        assert not [path for path in logs if token in path.read_text("utf-8", "replace")]

        # a killed actor takes its worker process with it, and Ray restarts it
        victim = next(process for process in ray_processes(nodes) if "ray::WorkerHost" in process.name())
        children = victim.children(recursive=True)
        victim.kill()
        server.wait_for(command.has_printed("is restarted"), "the report")
        server.wait_for(lambda: len(joined(server)) == 2, "the restarted worker")
        assert not [child for child in children if child.is_running() and child.status() != "zombie"]

        # the second node dies with its item, which the other worker runs
        items = server.enqueue(batch(2, seconds=5))
        server.wait_for(lambda: all(running_on(server, item) for item in items), "both to run")
        nodes.do("kill")
        server.wait_for(command.has_printed("removed"), "the worker's removal")
        assert {server.finished(item)["status"] for item in items} == {"completed"}
        assert len({server.item(item)["device"] for item in items}) == 1
        nodes.do("add")
        server.wait_for(lambda: len(joined(server)) == 2, "the new node's worker")

        # a running item ends before the workers stop
        (item,) = server.enqueue(batch(1, seconds=3))
        server.wait_for(lambda: running_on(server, item), "the item to run")
        assert command.stop() == 0
        assert server.item(item)["status"] == "completed"
        assert joined(server) == []
    finally:
        sys.stderr.write(command.log.read_text())
        command.stop()


def test_wrong_tokens(server: Server, nodes: RayNodes, tmp_path: Path) -> None:
    wrong = RayCommand(tmp_path, nodes.address, server.url, "icw_" + "a" * 43, "--cpu", **AUTH)
    assert wrong.process.wait(PATIENCE) == 1
    assert "is refused: the worker token is missing, wrong, expired or revoked" in wrong.log.read_text().lower()
    wrong.log.unlink()
    other = AUTH | {"RAY_AUTH_TOKEN": "x" * 32}
    assert RayCommand(tmp_path, nodes.address, server.url, "icw_a", "--cpu", **other).process.wait(PATIENCE) == 1
    line = wrong.log.read_text().splitlines()[-1]  # Ray writes others
    assert line.startswith(f"invokeclone: cannot connect to the cluster {nodes.address}: ")


def test_an_open_cluster_is_refused(tmp_path: Path) -> None:
    open_nodes = RayNodes(tmp_path, RAY_AUTH_MODE="disabled")
    try:
        refused = RayCommand(
            tmp_path, open_nodes.address, "http://127.0.0.1:1", "icw_a", "--cpu", RAY_AUTH_MODE="disabled"
        )
        assert refused.process.wait(PATIENCE) == 1
        line = refused.log.read_text().splitlines()[-1]
        assert line.startswith(
            "invokeclone: whoever reaches a cluster that needs no token can run programs on its nodes"
        )
    finally:
        open_nodes.close()
