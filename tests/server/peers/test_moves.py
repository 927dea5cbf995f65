"""Moves of images, of which servers on one database run one at a time."""

from collections.abc import AsyncIterator

import pytest

from invokeclone.images.errors import AlreadyMoving
from invokeclone.images.relocation import store
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
        assert not resources.maintenance
    await moves.start()
    job = (await moves.status()).latest_job
    assert job is not None
    assert job.state not in store.UNDER_WAY
    await moves.recover()
    await moves.stop()
    assert (await moves.status()).operation is None
