"""Periodic tasks run at once, after their interval and when they are woken, survive errors, log each kind once, and stop."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from invokeclone.kit.process.periodic import PeriodicTask

HOUR = 3600.0
_logger = logging.getLogger("invokeclone.test")


class Work:
    """Runs that are counted, and can fail or be held."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.changed = asyncio.Condition()
        self.errors: list[BaseException | None] = []
        """The errors of the next runs."""
        self.go = asyncio.Event()
        self.go.set()

    async def run(self) -> None:
        self.begun += 1
        await self._notify()
        await self.go.wait()
        error = self.errors.pop(0) if self.errors else None
        self.ended += 1
        await self._notify()
        if error is not None:
            raise error

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(condition)


def periodic(work: Callable[[], Awaitable[object]], interval_s: float | None, **options: Any) -> PeriodicTask:
    options = {"failure": "cannot work", "logger": _logger, **options}
    return PeriodicTask("work", work, interval_s, **options)


@pytest.fixture
def work() -> Work:
    return Work()


async def idle(number: int = 20) -> None:
    """Let all other tasks run until they wait."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_runs_are_repeated_after_the_interval(work: Work) -> None:
    task = periodic(work.run, 0.0)
    task.start()
    await work.until(lambda: work.ended >= 3)
    await task.stop()
    ended = work.ended
    await idle()
    assert work.ended == ended


async def test_the_first_run_is_at_the_start(work: Work) -> None:
    task = periodic(work.run, HOUR)
    task.start()
    task.start()
    await work.until(lambda: work.ended == 1)
    await idle()
    assert work.begun == 1
    await task.stop()


@pytest.mark.parametrize(("interval_s", "options"), [(HOUR, {"at_once": False}), (None, {})])
async def test_other_tasks_run_only_after_the_interval_or_when_woken(
    work: Work, interval_s: float | None, options: dict[str, Any]
) -> None:
    task = periodic(work.run, interval_s, **options)
    task.start()
    await idle()
    assert work.begun == 0
    for number in (1, 2):
        task.wake()
        await work.until(lambda number=number: work.ended == number)  # type: ignore[misc]
        await idle()
        assert work.begun == number
    await task.stop()


async def test_a_wake_before_the_start_counts(work: Work) -> None:
    task = periodic(work.run, None)
    task.wake()
    task.start()
    await work.until(lambda: work.ended == 1)
    await task.stop()


async def test_wakes_during_a_run_cause_one_more(work: Work) -> None:
    task = periodic(work.run, HOUR)
    work.go.clear()
    task.start()
    await work.until(lambda: work.begun == 1)
    for _ in range(3):
        task.wake()
    await idle()
    assert work.begun == 1
    work.go.set()
    await work.until(lambda: work.ended == 2)
    await idle()
    assert work.begun == 2
    await task.stop()


async def run_all(task: PeriodicTask, work: Work) -> None:
    """Run once for each of the errors."""
    for _ in list(work.errors):
        ended = work.ended
        task.wake()
        await work.until(lambda ended=ended: work.ended > ended)  # type: ignore[misc]
        await idle()


async def test_errors_are_logged_once_per_kind_and_again_after_a_success(
    work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    task = periodic(work.run, None, expected=(OSError,))
    task.start()
    work.errors = [
        ConnectionError("a"),
        ValueError("b"),
        ConnectionError("c"),
        ValueError("d"),
        None,
        ConnectionError("e"),
    ]
    with caplog.at_level("INFO"):
        await run_all(task, work)
    await task.stop()
    lines = [(record.levelname, record.getMessage(), bool(record.exc_info)) for record in caplog.records]
    assert lines == [
        ("WARNING", "cannot work: a", False),
        ("ERROR", "cannot work", True),
        ("INFO", "recovered (cannot work)", False),
        ("WARNING", "cannot work: e", False),
    ]
    assert {record.action for record in caplog.records} == {"work"}  # type: ignore[attr-defined]


async def test_work_that_never_returns_can_note_its_success(work: Work, caplog: pytest.LogCaptureFixture) -> None:
    async def connect_and_lose() -> None:
        if work.begun == 1:
            task.note_success()
        await work.run()

    task = periodic(connect_and_lose, None)
    task.start()
    work.errors = [OSError("a"), OSError("b"), OSError("c")]
    await run_all(task, work)
    await task.stop()
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["a", "b"]


async def test_the_cancellation_of_something_awaited_does_not_end_the_task(
    work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    task = periodic(work.run, None)
    task.start()
    work.errors = [asyncio.CancelledError(), None]
    await run_all(task, work)
    assert work.ended == 2
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == ["cannot work"]
    await task.stop()


async def test_a_stop_cancels_the_run_and_waits_for_its_end() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.set()

    task = periodic(work, 0.0)
    task.start()
    await begun.wait()
    await task.stop()
    assert ended.is_set()
    await task.stop()


async def test_a_task_that_was_not_started_can_be_stopped(work: Work) -> None:
    await periodic(work.run, 0.0).stop()
    assert work.begun == 0


async def test_a_stopped_task_can_be_started_again(work: Work) -> None:
    task = periodic(work.run, HOUR)
    for number in (1, 2):
        task.start()
        await work.until(lambda number=number: work.ended == number)  # type: ignore[misc]
        await task.stop()


async def test_work_can_stop_its_own_task() -> None:
    stopped: list[int] = []

    async def work() -> None:
        stopped.append(1)
        await task.stop()

    task = periodic(work, 0.0)
    task.start()
    await idle()
    await task.stop()
    assert stopped == [1]


async def test_the_end_of_the_event_loop_ends_the_task(work: Work) -> None:
    task = periodic(work.run, 0.0)
    work.go.clear()
    task.start()
    await work.until(lambda: work.begun == 1)
    (running,) = (other for other in asyncio.all_tasks() if other.get_name() == "work")
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
