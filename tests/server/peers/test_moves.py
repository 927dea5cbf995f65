"""Moves of images, of which servers on one database run one at a time."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from invokeclone.images.errors import AlreadyMoving
from invokeclone.images.events import ImageMoveChangedEvent
from invokeclone.images.relocation import service, store
from invokeclone.images.relocation.service import MOVE_LOCK, ImageMoves
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Bus
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.postgres_database import PostgresDatabase
from tests.postgres import PostgresServer


@pytest.fixture
async def resources(settings: Settings, postgres: PostgresServer) -> AsyncIterator[Resources]:
    database = PostgresDatabase(postgres.clean_database())
    yield Resources(settings, database, Bus())
    await database.close()


async def test_a_server_that_starts_does_not_disturb_the_move_of_another(resources: Resources) -> None:
    async with resources.database.write() as connection:
        await store.hold_queue(connection)
        await store.add_job(connection)
    moves = ImageMoves(resources)
    async with resources.database.try_lock(MOVE_LOCK) as is_held:
        assert is_held
        await moves.start()
        job = (await moves.status()).latest_job
        assert job is not None
        assert job.state == "planned"
        with pytest.raises(AlreadyMoving):
            await moves.recover()
        assert resources.maintenance, "operations on images are refused meanwhile"
    await moves.start()
    job = (await moves.status()).latest_job
    assert job is not None
    assert job.state not in store.UNDER_WAY
    await moves.recover()
    await moves.stop()
    assert (await moves.status()).operation is None


@pytest.fixture
def movers(pair: list[Resources], monkeypatch: pytest.MonkeyPatch) -> list[ImageMoves]:
    monkeypatch.setattr(service, "PEER_CHECK_S", 0.01)
    both = [ImageMoves(resources) for resources in pair]
    for mover, resources in zip(both, pair, strict=True):
        assert isinstance(resources.events, Bus)
        mover.listen(resources.events)
    return both


async def until_free(resources: Resources) -> None:
    async with asyncio.timeout(30):
        while resources.maintenance:
            await asyncio.sleep(0.01)


async def test_operations_are_refused_while_another_server_moves_images(
    movers: list[ImageMoves], pair: list[Resources], monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, second), resources = movers, pair[1]
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def move() -> None:
        begun.set()
        await go_on.wait()

    monkeypatch.setattr(first, "_move", move)
    await first.move_all()
    await begun.wait()
    assert resources.maintenance
    status = await second.status()
    assert (status.is_running, status.operation) == (True, "move_all")
    assert status.active_job_id == (await first.status()).active_job_id
    with pytest.raises(AlreadyMoving):
        await second.move_all()
    assert resources.maintenance
    go_on.set()
    await until_free(resources)
    assert (await second.status()).operation is None
    for mover in movers:
        await mover.stop()


async def test_operations_are_allowed_again_when_the_server_that_moved_images_is_killed(
    movers: list[ImageMoves], pair: list[Resources]
) -> None:
    async with pair[0].database.try_lock(MOVE_LOCK):
        pair[0].events.emit(ImageMoveChangedEvent(operation="move_all", job_id=1, last_error=None))
        assert pair[1].maintenance
    await until_free(pair[1])
    for mover in movers:
        await mover.stop()
