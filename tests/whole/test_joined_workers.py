"""Real workers join a real server, and everything is killed, stopped and cut off, again and again."""

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator

import pytest

from tests.server_process import Server
from tests.whole.joined_machines import JoinedMachine, batch, check_changes, make_token, write_pack

FAULT_S = float(os.environ.get("INVOKECLONE_FAULT_S", "120"))


Join = Callable[[str], JoinedMachine]


@pytest.fixture
def server(make_server: Callable[[], Server]) -> Server:
    server = make_server()
    write_pack(server.root)
    (server.root / "invokeai.yaml").write_text("schema_version: 4.0.3\ngeneration_devices: []\n")
    return server.start()


@pytest.fixture
def join(server: Server) -> Iterator[Join]:
    token = make_token(server)
    machines: list[JoinedMachine] = []

    def act(name: str) -> JoinedMachine:
        machines.append(JoinedMachine(server, name, token))
        return machines[-1]

    yield act
    for machine in machines:
        machine.end()


def running_on(server: Server, item_id: int) -> str | None:
    item = server.item(item_id)
    return item.get("device") if item["status"] == "in_progress" else None


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_late_result_of_a_stopped_machine_is_refused(server: Server, join: Join) -> None:
    first = join("first")
    (item_id,) = server.enqueue(batch(1, seconds=8))
    server.wait_for(lambda: running_on(server, item_id) == "first/cpu", "the item to run")
    with first.stopped():
        server.wait_for(lambda: server.item(item_id)["status"] == "pending", "the end of the lease")
        join("second")
        server.wait_for(lambda: running_on(server, item_id) == "second/cpu", "the item to run again")
    item = server.finished(item_id)
    assert (item["status"], item["device"]) == ("completed", "second/cpu")
    server.wait_for(lambda: first.log.read_text().count("joined http") == 2, "the first machine to return")


HISTORY = """
CREATE TABLE test_history (number INTEGER PRIMARY KEY, item_id, status, worker_id, fence);
CREATE TRIGGER test_history_updates AFTER UPDATE OF status, fence ON session_queue BEGIN
    INSERT INTO test_history (item_id, status, worker_id, fence) VALUES (new.item_id, new.status, new.worker_id, new.fence);
END;
"""


def database_of(server: Server) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(server.root / "databases" / "invokeai.db", timeout=30))


def check_history(server: Server, item_ids: list[int]) -> None:
    with database_of(server) as database:
        rows = database.execute("SELECT item_id, status, worker_id, fence FROM test_history ORDER BY number").fetchall()
    check_changes(rows, item_ids)


@pytest.mark.slow
@pytest.mark.timeout(FAULT_S + 400)
def test_nothing_is_lost_or_run_to_its_end_twice(server: Server, join: Join) -> None:
    with database_of(server) as database:
        database.executescript(HISTORY)
    machines = [join("first"), join("second")]
    dice = random.Random(5)
    item_ids: list[int] = []
    end = time.monotonic() + FAULT_S
    while time.monotonic() < end:
        item_ids += server.enqueue(batch(4, seconds=0.3))
        machine = dice.choice(machines)
        match dice.choice(["worker", "machine", "stop", "server", "nothing"]):
            case "worker":
                machine.kill_worker()
            case "machine":
                machine.kill()
            case "stop":
                with machine.stopped():
                    time.sleep(dice.uniform(1, 8))
            case "server":
                server.kill() if dice.random() < 0.5 else server.stop(signal.SIGTERM)
                server.start()
        time.sleep(dice.uniform(1, 6))
    statuses = []
    for number, item_id in enumerate(item_ids):
        item = server.finished(item_id)
        statuses.append(item["status"])
        if item["status"] == "completed":
            (result,) = item["session"]["results"].values()
            assert result["value"] == number % 4
        else:
            assert item["error_type"] == "WorkerDied", item
    assert statuses.count("completed") >= len(statuses) * 0.9
    check_history(server, item_ids)
