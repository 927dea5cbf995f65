"""What is left when a process dies: exactly one terminal state per item, pending ones run, nobody is orphaned."""

import signal
from collections.abc import Callable
from functools import partial

import psutil
import pytest

from tests.server_process import Server

pytestmark = pytest.mark.timeout(280)


def running(server: Server, item_id: int) -> bool:
    return bool(server.item(item_id)["status"] == "in_progress")


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_killed_worker_fails_its_item_and_the_others_run(make_server: Callable[[], Server]) -> None:
    server = make_server().start()
    worker = server.a_worker()
    (long,) = server.enqueue(server.batch(steps=1000))
    (after,) = server.enqueue(server.batch("a green square", seed=2, steps=2))
    server.wait_for(lambda: running(server, long), "the long item to run")
    worker.kill()
    item = server.finished(long)
    assert item["status"] == "failed"
    assert "worker" in item["error_message"].lower()
    next_item = server.finished(after)
    assert next_item["status"] == "completed", (next_item["error_message"], server.log.read_text()[-3000:])
    assert server.a_worker().pid != worker.pid
    assert server.item(long)["status"] == "failed"


@pytest.mark.parametrize(
    "signals",
    [
        pytest.param((signal.SIGTERM,), id="term"),
        pytest.param((signal.SIGINT, signal.SIGKILL), id="int-kill", marks=pytest.mark.slow),
    ],
)
def test_server_ending_mid_run_stops_its_worker_and_the_next_start_resumes(
    make_server: Callable[[], Server], signals: tuple[signal.Signals, ...]
) -> None:
    """Asked to end in either way it does so gracefully; killed it leaves its worker to end itself."""
    server = make_server().start()
    (completed_id,) = server.enqueue(server.batch(steps=1))
    assert server.finished(completed_id)["status"] == "completed"
    canceled = []
    for how in signals:
        worker = server.a_worker()
        (long,) = server.enqueue(server.batch(steps=1000))
        (pending,) = server.enqueue(server.batch("a blue star", seed=3, steps=2))
        server.wait_for(partial(running, server, long), "the long item to run")
        assert server.stop(how) == (-how if how == signal.SIGKILL else 0), server.log.read_text()[-3000:]
        if how == signal.SIGKILL:
            server.wait_for(partial(has_ended, worker), "the worker to end itself")
        assert has_ended(worker)
        assert "Traceback" not in server.log.read_text()
        server.start()
        assert server.finished(long)["status"] == "canceled"
        assert server.finished(pending)["status"] == "completed"
        canceled.append(long)
    assert server.item(completed_id)["status"] == "completed"
    assert [server.item(item)["status"] for item in canceled] == ["canceled"] * len(signals)
    status = server.client.get("/api/v1/queue/default/status").json()["queue"]
    runs = len(signals)
    assert (status["completed"], status["canceled"], status["total"]) == (1 + runs, runs, 1 + 2 * runs)
    assert len(server.client.get("/api/v1/images/").json()["items"]) == 1 + runs
