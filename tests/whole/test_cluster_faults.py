"""A server on PostgreSQL and S3 with workers of other machines, while everything is killed, stopped, cut off and restarted.

The short run has two joined machines. The long one (slow) also has two nodes of a Ray cluster, if Ray is installed; its
length is INVOKECLONE_CLUSTER_FAULT_S seconds, by default 20 minutes.
"""

import asyncio
import contextlib
import importlib.util
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from sqlalchemy.engine import make_url

from tests.postgres import PostgresServer
from tests.s3_server import CREDENTIALS, S3Service
from tests.server.joined.conftest import Proxy
from tests.server_process import PATIENCE, Server
from tests.whole.joined_machines import JoinedMachine, batch, check_changes, make_token, write_pack
from tests.whole.ray_cluster import AUTH, RayCommand, RayNodes

LONG_S = float(os.environ.get("INVOKECLONE_CLUSTER_FAULT_S", "1200"))
COMMAND = (str(Path(__file__).with_name("short_times.py")),)
HISTORY = """
CREATE TABLE test_history (number bigserial PRIMARY KEY, item_id bigint, status text, worker_id text, fence integer);
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO test_history (item_id, status, worker_id, fence) VALUES (new.item_id, new.status, new.worker_id, new.fence);
    RETURN NULL;
END $$;
CREATE TRIGGER test_history AFTER UPDATE OF status, fence ON session_queue FOR EACH ROW EXECUTE FUNCTION note_change();
"""


class Network:
    """The proxy between the workers and the server, in a thread with an event loop of its own."""

    def __init__(self, target: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._proxy = Proxy()
        self._proxy.target = target
        self._ended = asyncio.Event()
        opened = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(opened),))
        self._thread.start()
        assert opened.wait(PATIENCE)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._proxy.port}"

    def cut(self) -> None:
        """Close all connections; new ones can be made."""
        self._loop.call_soon_threadsafe(self._proxy.cut)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _run(self, opened: threading.Event) -> None:
        async with self._proxy.open():
            opened.set()
            await self._ended.wait()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)


class Installation:
    """All parts, the faults that may happen to them, and the items that must survive them."""

    def __init__(self, server: Server, postgres: PostgresServer, address: str, environment: dict[str, str]) -> None:
        self.server = server
        self.postgres = postgres
        self.address = address
        self.environment = environment
        self.network = Network(server.port)
        self.machines: list[JoinedMachine] = []
        self.nodes: RayNodes | None = None
        self.item_ids: list[int] = []
        self.stop_s = 4.5
        self.faults: dict[str, Callable[[random.Random], None]] = {
            "worker": lambda dice: dice.choice(self.machines).kill_worker(),
            "cut": lambda _dice: self.network.cut(),
            "machine": lambda dice: dice.choice(self.machines).kill(),
            "stop": self._stop_machine,
            "postgres": self._restart_postgres,
            "server": self._restart_server,
        }

    def add_machines(self, *names: str) -> None:
        token = make_token(self.server, **self.environment)
        self.machines += [
            JoinedMachine(self.server, name, token, url=self.network.url, command=COMMAND) for name in names
        ]

    def add_nodes(self, nodes: RayNodes) -> None:
        self.nodes = nodes
        self.faults |= {"node": self._kill_node, "actor": self._kill_actor}

    def enqueue(self, runs: int) -> None:
        """Enqueue; an error of a restarting database means that nothing was stored."""

        def accepted() -> bool:
            response = self.server.client.post("/api/v1/queue/default/enqueue_batch", json=body)
            if response.status_code == 200:
                self.item_ids += sorted(response.json()["item_ids"])
            else:
                assert response.status_code == 503, response.text
            return response.status_code == 200

        body = batch(runs, seconds=0.3, node_type="slow_image")
        self.server.wait_for(accepted, "the server to accept a batch")

    def _stop_machine(self, dice: random.Random) -> None:
        """Stop a machine for longer than its lease; it returns with a late result."""
        with dice.choice(self.machines).stopped():
            time.sleep(self.stop_s * dice.uniform(1, 1.5))

    def _restart_postgres(self, dice: random.Random) -> None:
        self.postgres.shut_down()
        time.sleep(dice.uniform(0.1, 1))
        self.postgres.start_again()

    def _restart_server(self, dice: random.Random) -> None:
        self.server.kill() if dice.random() < 0.5 else self.server.stop(signal.SIGTERM)
        self.server.start(**self.environment)

    def _kill_node(self, dice: random.Random) -> None:
        assert self.nodes is not None
        self.nodes.do("kill")
        time.sleep(dice.uniform(1, 10))
        self.nodes.do("add")

    def _kill_actor(self, dice: random.Random) -> None:
        assert self.nodes is not None
        processes = psutil.Process(self.nodes.process.pid).children(recursive=True)
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            dice.choice([process for process in processes if "ray::WorkerHost" in process.name()]).kill()

    def fetch(self, query: str) -> list[tuple[Any, ...]]:
        async def act() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(self.address)
            try:
                return [tuple(row) for row in await connection.fetch(query)]
            finally:
                await connection.close()

        return asyncio.run(act())

    def close(self) -> None:
        for machine in self.machines:
            machine.end()
        self.network.close()


@pytest.fixture
def installation(
    make_server: Callable[[], Server], postgres: PostgresServer, s3: S3Service, bucket: str
) -> Iterator[Installation]:
    address = postgres.new_database()
    environment = {
        "INVOKEAI_DATABASE_URL": address,
        "INVOKEAI_STORAGE_URL": f"s3://{bucket}",
        "INVOKEAI_STORAGE_ENDPOINT": s3.endpoint,
        "INVOKEAI_GENERATION_DEVICES": "[]",
        **CREDENTIALS,
    }
    server = make_server()
    server.command = [*COMMAND, "serve"]
    write_pack(server.root)
    server.start(**environment)
    installation = Installation(server, postgres, address, environment)
    postgres.run(HISTORY, database=str(make_url(address).database))
    yield installation
    installation.close()


def check(installation: Installation, s3: S3Service, bucket: str) -> None:
    """Check that nothing is lost, that each item had one end, and that results and objects belong together."""
    results = []
    for number, item_id in enumerate(installation.item_ids):
        item = installation.server.finished(item_id)
        if item["status"] == "completed":
            (result,) = item["session"]["results"].values()
            results.append(result["image"]["image_name"])
        else:
            assert (item["status"], item["error_type"]) == ("failed", "WorkerDied"), (number, item)
    assert len(results) >= len(installation.item_ids) * 0.9
    assert len(set(results)) == len(results)
    changes = installation.fetch("SELECT item_id, status, worker_id, fence FROM test_history ORDER BY number")
    check_changes(changes, installation.item_ids)
    assert installation.fetch("SELECT count(*) FROM session_queue") == [(len(installation.item_ids),)]
    # an object for each record, also of attempts that were interrupted after they saved their image, and no other object
    records = {name for (name,) in installation.fetch("SELECT image_name FROM images")}
    assert set(results) <= records
    installation.server.wait_for(lambda: saved_images(s3, bucket) == records, "objects without a record to be removed")
    interrupted = sum(status == "pending" for _, status, _, _ in changes)
    sys.stderr.write(f"{len(results)} of {len(installation.item_ids)} items completed, {interrupted} interruptions\n")


def saved_images(s3: S3Service, bucket: str) -> set[str]:
    return {key.rpartition("/")[2] for key in s3.keys(bucket) if key.startswith("images/") and key.endswith(".png")}


@pytest.mark.timeout(300)
def test_each_fault_once(installation: Installation, s3: S3Service, bucket: str) -> None:
    installation.add_machines("first", "second")
    dice = random.Random(3)
    installation.enqueue(2)
    installation.server.wait_for(
        lambda: installation.server.item(installation.item_ids[0])["status"] != "pending", "a worker"
    )
    for fault in ("worker", "cut", "postgres", "machine", "stop", "server"):
        installation.enqueue(3)
        time.sleep(0.3)
        installation.faults[fault](dice)
    installation.enqueue(2)
    check(installation, s3, bucket)


@pytest.mark.slow
@pytest.mark.timeout(LONG_S + 600)
def test_many_faults(installation: Installation, s3: S3Service, bucket: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("INVOKECLONE_FAULT_SEED", "5"))
    dice = random.Random(seed)
    # Ray's actors report at the usual intervals
    installation.environment["INVOKECLONE_TEST_SILENCE_S"] = "10"
    installation.stop_s = 11
    with contextlib.ExitStack() as exits:
        installation.faults["server"](dice)
        installation.add_machines("first")
        if importlib.util.find_spec("ray") is not None:
            nodes = RayNodes(tmp_path, **AUTH)
            exits.callback(nodes.close)
            installation.add_nodes(nodes)
            token = make_token(installation.server, **installation.environment)
            url = installation.network.url
            command = RayCommand(tmp_path, nodes.address, url, token, "--cpu", "--cpus", "2", **AUTH)
            exits.callback(command.stop)
        else:
            installation.add_machines("second")
        end = time.monotonic() + LONG_S
        while time.monotonic() < end:
            installation.enqueue(4)
            fault = dice.choice(sorted(installation.faults))
            sys.stderr.write(f"{LONG_S - end + time.monotonic():.0f} s: {fault}\n")
            installation.faults[fault](dice)
            time.sleep(dice.uniform(1, 6))
        check(installation, s3, bucket)
