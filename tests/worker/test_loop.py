"""The loop with a fake queue and a fake runner: waking, cancelling, failing, a database that refuses, the end."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from invokeclone.queue.claims import ItemError
from invokeclone.queue.rows import ClaimedItem
from invokeclone.worker import loop as loop_module
from invokeclone.worker.loop import Loop, Outcome

DONE = Outcome("completed", "{}")


class FakeQueue:
    """Items to claim, and what was finished; `refuse` counts how often writing fails before it works, `errors` how."""

    def __init__(self) -> None:
        self.pending: list[ClaimedItem] = []
        self.finished: list[tuple[int, str, ItemError | None]] = []
        self.claims = 0
        self.refuse = 0
        self.errors: Iterator[Exception] = iter(())
        self.attempts: list[tuple[int, str, ItemError | None]] = []
        self.break_claims = 0
        self.ours = True
        self.still_wanted = True
        self.changed = asyncio.Event()

    async def claim(self) -> ClaimedItem | None:
        self.claims += 1
        if self.break_claims:
            self.break_claims -= 1
            raise OperationalError("UPDATE", {}, sqlite3.OperationalError("disk I/O error"))
        return self.pending.pop(0) if self.pending else None

    async def finish(self, item: ClaimedItem, outcome: Outcome) -> bool:
        self.attempts.append((item.item_id, outcome.status, outcome.error))
        self.changed.set()
        if error := next(self.errors, None):
            raise error
        if self.refuse:
            self.refuse -= 1
            raise OperationalError("UPDATE", {}, sqlite3.OperationalError("database is locked"))
        if outcome.session_json == "unwritable":
            raise TypeError("not a session")
        self.finished.append((item.item_id, outcome.status, outcome.error))
        self.changed.set()
        return self.ours

    async def is_running(self, item: ClaimedItem) -> bool:
        return self.still_wanted

    async def until(self, count: int) -> None:
        await self._until(lambda: len(self.finished) >= count)

    async def until_attempts(self, count: int) -> None:
        await self._until(lambda: len(self.attempts) >= count)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class FakeRunner:
    """Does to an item what the test says; by default it is done at once."""

    def __init__(self) -> None:
        self.does: dict[int, Callable[[threading.Event], Outcome]] = {}
        self.threads: set[str] = set()
        self.began = threading.Event()
        self.interrupted = 0

    def interrupt(self) -> None:
        self.interrupted += 1

    def run(self, item: ClaimedItem, canceled: threading.Event) -> Outcome:
        self.threads.add(threading.current_thread().name)
        self.began.set()
        return self.does.get(item.item_id, lambda _canceled: DONE)(canceled)


class FakePulse:
    def __init__(self) -> None:
        self.beats: list[int | None] = []

    def heartbeat(self, item_id: int | None) -> None:
        self.beats.append(item_id)


def wait_for_cancel(canceled: threading.Event) -> Outcome:
    assert canceled.wait(10)
    return Outcome("canceled", "{}")


class Bench:
    """A loop between fakes."""

    def __init__(self, make: Any) -> None:
        self.queue, self.runner, self.pulse = FakeQueue(), FakeRunner(), FakePulse()
        self.loop = Loop(self.queue, self.runner, self.pulse)
        self._make = make
        self.running: asyncio.Task[None] | None = None

    def add(self, item_id: int, does: Callable[[threading.Event], Outcome] | None = None) -> None:
        self.queue.pending.append(self._make.item({"a": {"type": "toy_number"}}, item_id=item_id))
        if does:
            self.runner.does[item_id] = does
        self.loop.wake()

    async def wait_for_begin(self) -> None:
        assert await asyncio.to_thread(self.runner.began.wait, 10)


@pytest.fixture
async def bench(make: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(loop_module, "RETRY_S", (0.001, 0.002))
    monkeypatch.setattr(loop_module, "PAUSE_AFTER_ERROR_S", 0.01)
    monkeypatch.setattr(loop_module, "HEARTBEAT_S", 0.01)
    monkeypatch.setattr(loop_module, "POLL_S", 3600)
    loop_bench = Bench(make)
    loop_bench.running = asyncio.create_task(loop_bench.loop.run())
    yield loop_bench
    loop_bench.loop.stop()
    async with asyncio.timeout(10):
        await loop_bench.running


async def test_items_run_one_after_another_in_one_thread(bench: Bench) -> None:
    for item_id in (1, 2, 3):
        bench.add(item_id)
    await bench.queue.until(3)
    assert [item_id for item_id, _, _ in bench.queue.finished] == [1, 2, 3]
    assert len(bench.runner.threads) == 1
    assert next(iter(bench.runner.threads)).startswith("node")


async def test_wake_triggers_a_claim(bench: Bench) -> None:
    while bench.queue.claims == 0:
        await asyncio.sleep(0)
    bench.add(1)
    await bench.queue.until(1)


async def test_loop_polls_without_a_wake(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "POLL_S", 0.005)
    bench.loop.wake()
    while bench.queue.claims < 5:
        await asyncio.sleep(0.001)


async def test_cancel_reaches_the_running_item_only(bench: Bench) -> None:
    bench.add(1, wait_for_cancel)
    await bench.wait_for_begin()
    assert bench.loop.item_id == 1
    bench.loop.cancel(7)
    bench.loop.cancel(1)
    await bench.queue.until(1)
    assert bench.queue.finished == [(1, "canceled", None)]
    bench.add(2)
    await bench.queue.until(2)
    assert bench.queue.finished[-1][:2] == (2, "completed")


async def test_cancel_before_the_claim_takes_effect(bench: Bench) -> None:
    bench.loop.cancel(1)
    bench.add(1)
    await bench.queue.until(1)
    assert bench.queue.finished == [(1, "canceled", None)]
    assert not bench.runner.began.is_set()


async def test_lost_cancel_is_detected_in_the_row(bench: Bench) -> None:
    bench.add(1, wait_for_cancel)
    await bench.wait_for_begin()
    bench.queue.still_wanted = False
    await bench.queue.until(1)
    assert bench.queue.finished == [(1, "canceled", None)]


async def test_runner_error_fails_its_item_and_the_next_runs(bench: Bench) -> None:
    def break_down(_canceled: threading.Event) -> Outcome:
        raise RuntimeError("a screw came loose")

    bench.add(1, break_down)
    bench.add(2)
    await bench.queue.until(2)
    (_, status, error), second = bench.queue.finished
    assert status == "failed"
    assert error is not None
    assert error[:2] == ("RuntimeError", "a screw came loose")
    assert "break_down" in error.error_traceback
    assert second[:2] == (2, "completed")


async def test_announcement_follows_the_status_update(bench: Bench) -> None:
    announcements: list[int] = []
    outcome = Outcome("failed", "{}", ItemError("E", "m", "t"), lambda: announcements.append(len(bench.queue.finished)))
    bench.add(1, lambda _canceled: outcome)
    await bench.queue.until(1)
    bench.queue.ours = False
    bench.add(2, lambda _canceled: outcome)
    bench.add(3)
    await bench.queue.until(3)
    assert announcements == [1]


async def test_locked_database_delays_finishing_without_loss(bench: Bench) -> None:
    bench.queue.refuse = 7
    bench.add(1)
    bench.add(2)
    await bench.queue.until(2)
    assert [item_id for item_id, _, _ in bench.queue.finished] == [1, 2]


async def test_unwritable_result_fails_the_item(bench: Bench) -> None:
    bench.add(1, lambda _canceled: Outcome("completed", "unwritable"))
    bench.add(2)
    await bench.queue.until(2)
    (_, status, error), second = bench.queue.finished
    assert status == "failed"
    assert error is not None
    assert error[:2] == ("TypeError", "not a session")
    assert second == (2, "completed", None)


def outage() -> Exception:
    return OperationalError("BEGIN", {}, sqlite3.OperationalError("unable to open database file"))


@pytest.mark.parametrize(
    "make_errors",
    [
        lambda: [TypeError("no") for _ in range(6)],
        lambda: [TypeError("no"), outage(), RuntimeError("still no"), outage()],
        lambda: [outage(), TypeError("no"), outage(), outage(), outage()],
    ],
    ids=["refuses everything", "refuses and is down", "is down and refuses"],
)
async def test_no_item_is_claimed_before_the_end_of_the_last_one_is_stored(
    bench: Bench, make_errors: Callable[[], list[Exception]], caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that lives keeps its items: one whose end it gave up would stay in progress until the worker ends."""
    errors = make_errors()
    bench.queue.errors = iter(errors)
    bench.add(1)
    bench.add(2)
    await bench.queue.until(2)
    (item_id, status, error), second = bench.queue.finished
    assert (item_id, status, error and error[:2]) == (1, "failed", ("TypeError", "no"))
    assert second == (2, "completed", None)
    assert [number for number, _, _ in bench.queue.attempts] == [1] * (len(errors) + 1) + [2]
    classes = {type(error) for error in errors}
    messages = [record.getMessage() for record in caplog.records]
    assert len([text for text in messages if "not stored yet" in text]) <= len(classes), "each kind once"


async def test_an_item_that_was_lost_meanwhile_is_dropped(bench: Bench) -> None:
    """Canceled, deleted or claimed by another worker while the database was down."""
    announcements: list[int] = []
    bench.queue.errors = iter([outage(), TypeError("no"), outage()])
    bench.queue.ours = False
    outcome = Outcome("failed", "{}", ItemError("E", "m", "t"), lambda: announcements.append(1))
    bench.add(1, lambda _canceled: outcome)
    bench.add(2)
    await bench.queue.until(2)
    assert announcements == []
    assert len(bench.queue.attempts) == 5


@pytest.mark.parametrize("make_error", [outage, lambda: TypeError("no")], ids=["down", "refuses"])
async def test_a_database_that_fails_for_good_does_not_keep_a_worker_from_stopping(
    bench: Bench, make_error: Callable[[], Exception]
) -> None:
    bench.queue.errors = iter(make_error, None)
    bench.add(1)
    bench.add(2)
    await bench.queue.until_attempts(5)
    bench.loop.cancel(1)
    bench.loop.stop()
    async with asyncio.timeout(10):
        assert bench.running
        await bench.running
    assert bench.queue.finished == []
    assert [item.item_id for item in bench.queue.pending] == [2]


async def test_a_claim_that_fails_is_tried_again(bench: Bench) -> None:
    bench.queue.break_claims = 2
    bench.add(1)
    await bench.queue.until(1)


async def test_heartbeat_names_the_running_item(bench: Bench) -> None:
    bench.add(5, wait_for_cancel)
    await bench.wait_for_begin()
    while 5 not in bench.pulse.beats:
        await asyncio.sleep(0.001)
    bench.loop.cancel(5)
    await bench.queue.until(1)


async def test_stop_cancels_the_running_item_and_leaves_its_row(bench: Bench) -> None:
    bench.add(1, wait_for_cancel)
    bench.add(2)
    await bench.wait_for_begin()
    bench.loop.stop()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await bench.queue.until(1)
    assert bench.queue.finished == []
    assert [item.item_id for item in bench.queue.pending] == [2]


async def test_drain_finishes_the_running_item_and_claims_no_other(make: Any) -> None:
    bench, go = Bench(make), threading.Event()

    def when_told(_canceled: threading.Event) -> Outcome:
        assert go.wait(10)
        return DONE

    bench.add(1, when_told)
    bench.add(2)
    running = asyncio.create_task(bench.loop.run())
    await bench.wait_for_begin()
    bench.loop.drain()
    go.set()
    async with asyncio.timeout(10):
        await running
    assert bench.queue.finished == [(1, "completed", None)]
    assert [item.item_id for item in bench.queue.pending] == [2]


async def test_item_completed_during_stop_is_finished(bench: Bench) -> None:
    def done_anyway(canceled: threading.Event) -> Outcome:
        assert canceled.wait(10)
        return DONE

    bench.add(1, done_anyway)
    await bench.wait_for_begin()
    bench.queue.refuse = 1
    bench.loop.stop()
    await bench.queue.until(1)
    assert bench.queue.finished == [(1, "completed", None)]
