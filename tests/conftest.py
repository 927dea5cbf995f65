"""What every test may ask for: settings on a temporary root, a migrated database, a recorder of events."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from invokeclone.kit.database import Database
from invokeclone.kit.events import Event
from invokeclone.kit.resources import Resources
from invokeclone.kit.settings import Settings


class RecordedEvents:
    """An emitter that keeps what it was told, in order."""

    def __init__(self) -> None:
        self.sent: list[Event] = []

    def emit(self, event: Event) -> None:
        self.sent.append(event)

    def names(self) -> list[str]:
        return [event.name for event in self.sent]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(root=tmp_path / "root", device="cpu", precision="float32", log_format="plain")


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    opened = Database(settings.database_path)
    await opened.migrate()
    yield opened
    await opened.close()


@pytest.fixture
def events() -> RecordedEvents:
    return RecordedEvents()


@pytest.fixture
def resources(settings: Settings, database: Database, events: RecordedEvents) -> Resources:
    return Resources(settings, database, events)
