"""Links to worker processes: what may wait unread, and what is taken for a hung worker."""

from collections.abc import AsyncIterator

import pytest

from invokeclone.server.supervision import hints, link
from invokeclone.server.supervision.hints import Hints
from invokeclone.server.supervision.launch import Backoff
from invokeclone.server.supervision.link import Backlog, Message, WorkerLink
from invokeclone.server.supervision.workers import Worker

LARGE = 10 * 1024 * 1024


@pytest.fixture
async def deaf() -> AsyncIterator[WorkerLink]:
    """Give the link of a process that reads nothing."""
    worker = await WorkerLink.start(("sleep", "60"), lambda _message: None)
    yield worker
    worker.kill()
    await worker.wait()


async def test_a_large_message_in_transit_and_results_are_no_sign_of_a_hung_worker(
    deaf: WorkerLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "UNREAD_LIMIT", 1000)
    killed: list[bool] = []
    monkeypatch.setattr(deaf, "kill", lambda: killed.append(True))
    deaf.send({"kind": "images_deleted", "names": ["x" * LARGE]})
    for number in range(3):
        deaf.send({"kind": "wake"})
        deaf.send({"kind": "result", "id": number, "value": "x" * LARGE})
    assert not killed


async def test_a_worker_that_does_not_read_is_killed(deaf: WorkerLink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "UNREAD_LIMIT", 1000)
    deaf.send({"kind": "result", "id": 1, "value": "x" * LARGE})
    for _ in range(100):
        deaf.send({"kind": "models_changed", "keys": ["x" * 20]})
    assert await deaf.wait() == -9


def test_the_backlog_follows_what_is_read() -> None:
    backlog = Backlog()
    for size, is_result in ((100, False), (10, False), (1000, True), (5, False)):
        backlog.add(size, is_result=is_result)
    assert backlog.size == 15
    backlog.trim(1015)  # the first one is read, and none of the second
    assert backlog.size == 5
    backlog.trim(1014)  # a part of the second
    assert backlog.size == 5
    backlog.trim(1000)
    assert backlog.size == 5
    backlog.trim(5)
    assert backlog.size == 0
    backlog.trim(0)
    assert (backlog.size, backlog._total) == (0, 0)


async def test_many_deleted_images_are_several_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "MAX_NAMES", 2)
    shared: list[Message] = []
    sender = Hints([Worker("cpu")], 5.0)
    sender.share = shared.append
    sender.on_event(hints.ImagesDeletedEvent, {"image_names": ["a", "b", "c", "d", "e"]})
    assert [hint["names"] for hint in shared] == [["a", "b"], ["c", "d"], ["e"]]


def test_delays_double_up_to_the_maximum() -> None:
    backoff = Backoff(0.5, 3)
    assert [backoff.next() for _ in range(4)] == [0.5, 1, 2, 3]
    backoff.reset()
    assert backoff.next() == 0.5
