"""Installations whose process dies, or of which one operation fails, at each statement and each operation on a file.

After the next start the job goes on or has ended; the user's files are where they were or registered, and nothing is left over.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from tests.faults import Faults
from tests.models.install.from_web.scenarios import SCENARIOS, Scenario, Stage, Unreachable

SWEEPS = [pytest.param(name, 1, marks=pytest.mark.slow) for name in SCENARIOS]
"""Every operation of every scenario; each run takes the others, a few operations of two."""
SAMPLES = [("from_the_web", 11), ("local_file", 7)]


@pytest.fixture
async def stage(
    resources: Any, fake_web: Any, fake_hub: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    new_stage = Stage(resources, fake_web, make, monkeypatch)
    yield new_stage
    await new_stage.die()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch, resources: Any, make: Any) -> Faults:
    return Faults(monkeypatch, resources.settings.root.parent)


async def count(stage: Stage, faults: Faults, run: Scenario) -> int:
    """Return the operations of a scenario in which nothing fails."""
    await stage.begin()
    with faults.armed(0):
        await run(stage)
        await stage.end()
    return faults.count


async def until_dead(faults: Faults, work: "asyncio.Task[None]") -> None:
    """Let a scenario go on until an operation fails, or to its end."""
    while not (work.done() or faults.dead.is_set()):
        await asyncio.sleep(0.001)
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):  # whatever comes of it, nobody is there to see it
        await work


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "step"), [*SAMPLES, *SWEEPS])
async def test_recovery_from_a_crash_at_every_operation(stage: Stage, faults: Faults, name: str, step: int) -> None:
    run = SCENARIOS[name]
    operations = await count(stage, faults, run)
    for number in range(step, operations + 1, step):
        await stage.begin()
        with faults.armed(number, forever=True):
            await until_dead(faults, asyncio.create_task(run(stage)))
            await stage.die()
        stage.release()
        await stage.begin()
        await stage.at_rest()
        await stage.end()
        await stage.check()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "step"), [*SAMPLES, *SWEEPS])
async def test_recovery_from_a_single_failure_at_every_operation(
    stage: Stage, faults: Faults, name: str, step: int
) -> None:
    run = SCENARIOS[name]
    operations = await count(stage, faults, run)
    for number in range(step, operations + 1, step):
        await stage.begin()
        with (
            faults.armed(number),
            contextlib.suppress(sqlite3.OperationalError, OperationalError, OSError, Unreachable),
        ):
            await run(stage)
        stage.release()
        if stage.started:
            await stage.at_rest()
            await stage.end()
            await stage.check()
        await stage.begin()
        await stage.at_rest()
        await stage.retry()
        await stage.installer.prune()
        assert [job for job in stage.installer.jobs() if not job.ended] == []
        await stage.end()
        await stage.check()
