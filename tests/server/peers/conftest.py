"""Two servers on one database and one storage, whose events reach each other as through Redis, but at once."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import EVENTS, Bus, Event
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.postgres_database import PostgresDatabase
from tests.postgres import PostgresServer


def connect(*buses: Bus) -> None:
    """Pass the events of each bus to the others, as JSON."""

    def forward(source: Bus, kind: type[Event], payload: dict[str, Any]) -> None:
        text = orjson.dumps([kind.name, payload])
        for bus in buses:
            if bus is not source:
                name, fields = orjson.loads(text)
                bus.publish(EVENTS[name], fields, is_local=False)

    for bus in buses:
        bus.subscribe(lambda kind, payload, source=bus: forward(source, kind, payload), only_own=True)


@pytest.fixture
def settings_of_two(tmp_path: Path, postgres: PostgresServer) -> list[Settings]:
    """Return the settings of two servers with roots of their own."""
    database_url, storage_url = postgres.clean_database(), (tmp_path / "storage").as_uri()
    return [
        Settings(root=tmp_path / name, device="cpu", database_url=database_url, storage_url=storage_url)
        for name in ("first", "second")
    ]


@pytest.fixture
async def pair(settings_of_two: list[Settings]) -> AsyncIterator[list[Resources]]:
    """Return the resources of two servers."""
    buses = [Bus(), Bus()]
    connect(*buses)
    both = [
        Resources(settings, PostgresDatabase(str(settings.database_url)), bus)
        for settings, bus in zip(settings_of_two, buses, strict=True)
    ]
    yield both
    for resources in both:
        await resources.database.close()
