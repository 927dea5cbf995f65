"""Installations of several servers on one database and one folder of models."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Bus
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.postgres_database import PostgresDatabase
from invokeclone.models.install import folders, journal
from invokeclone.models.install.journal import InstallEntry
from invokeclone.models.install.service import Installer
from tests.postgres import PostgresServer


@pytest.fixture
async def servers(tmp_path: Path, postgres: PostgresServer) -> AsyncIterator[list[Resources]]:
    """Return two servers, each with a root of its own."""
    database = PostgresDatabase(postgres.clean_database())
    roots = (tmp_path / "first", tmp_path / "second")
    settings = [Settings(root=root, models_dir=tmp_path / "models", device="cpu") for root in roots]
    yield [Resources(own, database, Bus()) for own in settings]
    await database.close()


async def test_a_server_that_starts_leaves_the_installations_of_others(servers: list[Resources]) -> None:
    first, second = servers
    models = first.settings.models_path
    ids = [folders.server_id(server.settings) for server in servers]
    assert len(set(ids)) == 2
    assert ids[0] == folders.server_id(first.settings)
    running = folders.new_folder(models, ids[0])
    paused = InstallEntry(
        folder=running.name, key="k", source='{"type":"url","url":"http://a/b"}', stated="{}", paused=True
    )
    async with first.database.write() as connection:
        await journal.save(connection, paused)
    abandoned = [folders.new_folder(models, server) for server in ids]
    copy = models / ".copying_99999999_k"
    for folder in (running, *abandoned, copy):
        folder.mkdir(parents=True)

    for server, jobs, left in ((second, 0, {running, abandoned[0], copy}), (first, 1, {running, copy})):
        installer = Installer(server, persistent=True)
        await installer.start()
        assert len(installer.jobs()) == jobs
        await installer.stop()
        assert set(models.iterdir()) == left
    async with first.database.read() as connection:
        assert [entry.folder for entry in await journal.entries(connection)] == [running.name]
