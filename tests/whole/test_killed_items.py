"""kill -9 of the worker, or of the server, before each operation of a queue item, of an image's coming and going and of recovery.

The operations are found in a run in which nobody dies: SQL of write transactions, changes of files, and events.
"""

from collections.abc import Callable

import pytest

from tests.server_process import Server
from tests.whole.killing import CANCEL, CLAIM, DELETE, ENQUEUE, RECOVER, UPLOAD, WORKER_DIED, KilledServer

Act = Callable[[KilledServer], object]
RECORDED = "SQL INSERT INTO images image_name #1"
"""In the run of an item: the files of its image are written, and the row is not."""
ACTS: dict[str, tuple[str, Act]] = {
    "enqueue": (ENQUEUE, KilledServer.run),
    "cancel": (CANCEL, KilledServer.cancel),
    "upload": (UPLOAD, KilledServer.upload),
    "delete": (DELETE, KilledServer.delete),
}
EXPECTED = {
    "item": {
        "SQL COMMIT #1",
        "SQL after COMMIT #1",
        RECORDED,
        "SQL COMMIT #2",
        "SQL COMMIT #3",
        "event queue_item_status_changed #2",
    },
    "enqueue": {"SQL COMMIT #1", "SQL after COMMIT #1"},
    "cancel": {"SQL COMMIT #1", "SQL after COMMIT #1"},
    "upload": {"SQL COMMIT #1", "SQL after COMMIT #1", "os.rename outputs/images/*.png #1"},
    "delete": {"SQL COMMIT #1", "SQL after COMMIT #1", "os.remove outputs/images/*.png #1"},
}
"""Operations that must be among those found."""


@pytest.fixture
def killed(make_server: Callable[[], Server]) -> KilledServer:
    server = KilledServer(make_server())
    server.start()
    server.run()  # makes the folders
    return server


@pytest.mark.timeout(600)
def test_kills_between_files_and_records(killed: KilledServer) -> None:
    killed.kill_at(CLAIM, RECORDED, KilledServer.run, "worker")
    killed.kill_at(CLAIM, RECORDED, KilledServer.run, "server")
    assert set(killed.ends.values()) == {"completed", "failed", "canceled"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("victim", ["worker", "server"])
def test_kills_at_each_operation_of_an_item(killed: KilledServer, victim: str) -> None:
    """What was not claimed runs later; what ran has failed with its worker, or was canceled with the server."""
    points = killed.operations(CLAIM, run_twice)
    assert set(points) >= EXPECTED["item"]
    for point in points:
        killed.kill_at(CLAIM, point, KilledServer.run, victim)
    assert set(killed.ends.values()) == {"completed", "failed" if victim == "worker" else "canceled"}


def run_twice(killed: KilledServer) -> None:
    """Run an item, and another one whose claim ends the counting."""
    killed.run()
    killed.run()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", list(ACTS))
def test_kills_at_each_operation_of_a_request(killed: KilledServer, name: str) -> None:
    during, act = ACTS[name]
    points = killed.operations(during, act)
    assert set(points) >= EXPECTED[name]
    for point in points:
        killed.kill_at(during, point, act)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_while_a_dead_worker_is_cleaned_up(killed: KilledServer) -> None:
    """The worker dies before an image has its row, and the server while it fails the item and removes the files."""

    def die(server: KilledServer) -> None:
        server.arm(CLAIM, RECORDED, "worker")
        server.run()
        server.run()  # by the next worker, thus when the server has dealt with the dead one

    points = killed.operations(WORKER_DIED, die)
    points = points[points.index(RECORDED) + 1 :]
    assert "SQL COMMIT #1" in points
    assert "os.remove outputs/images/*.png #1" in points
    for point in points:
        killed.kill_at(WORKER_DIED, point, die)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_during_recovery(killed: KilledServer) -> None:
    """The server dies in the run of an item, and again while its next start puts that in order."""

    def leave_unfinished() -> None:
        killed.arm(CLAIM, RECORDED, "server")
        with pytest.raises(Exception):  # noqa: B017  (the connection ends in one way or another)
            killed.act(CLAIM, KilledServer.run)
        killed.await_death()
        killed.trace()

    leave_unfinished()
    killed.arm(RECOVER, None, "nobody", lasting=True)
    killed.start()
    points = killed.trace()
    points = points[: points.index("os.remove databases/intents/*.json #1") + 2]
    killed.check()
    for point in points:
        leave_unfinished()
        killed.arm(RECOVER, point, "server", lasting=True)
        killed.start_until_dead()
        assert killed.trace()[-1] == point
        killed.start()
        killed.check()
