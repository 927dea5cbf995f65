"""What every test may ask for: settings on a temporary root, a migrated database, a recorder of events."""

import logging
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from invokeclone.graph.invocations import registry
from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Event
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql import migrations
from invokeclone.kit.sql.database import Database, open_database

pytest_plugins = [
    "tests.open_transactions",
    "tests.postgres",
    "tests.redis_server",
    "tests.server_process",
    "tests.s3_server",
    "tests.tiny_models",
    "tests.tiny_flux",
]


class RecordedEvents:
    """An emitter that records events in order."""

    def __init__(self) -> None:
        self.sent: list[Event] = []

    def emit(self, event: Event) -> None:
        self.sent.append(event)

    def names(self) -> list[str]:
        return [event.name for event in self.sent]


SLOW_FOLDERS = ("official_ui", "whole", "shims", "adding", "parity", "browser", "families")
"""Folders whose files take long: several processes begin with them, so that none is left with one in the end."""


def _order_of(item: pytest.Item) -> int:
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    return SLOW_FOLDERS.index(folder) if folder in SLOW_FOLDERS else len(SLOW_FOLDERS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items.sort(key=_order_of)
    if config.getoption("--postgresql"):
        for item in items:
            for mark in item.iter_markers("sqlite"):
                item.add_marker(pytest.mark.skip(reason=f"SQLite only: {mark.args[0]}"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgresql", action="store_true", help="run tests that use the fixture `database` on PostgreSQL"
    )


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str | None:
    """Return the address of a PostgreSQL database in its first state with --postgresql, else None for SQLite."""
    if not request.config.getoption("--postgresql"):
        return None
    server = request.getfixturevalue("postgres")
    return str(server.clean_database())


@pytest.fixture
def settings(tmp_path: Path, database_url: str | None) -> Settings:
    root = tmp_path / "root"
    return Settings(root=root, device="cpu", precision="float32", log_format="plain", database_url=database_url)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a new database file, once: each test copies it instead of migrating anew."""
    file = tmp_path_factory.mktemp("database") / "invokeai.db"
    migrations.upgrade(file)
    return file


@pytest.fixture
def laid_out(settings: Settings, migrated: Path) -> None:
    """Put a new database where the settings say, so that an application starts without migrating."""
    settings.database_path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(migrated, settings.database_path)
    settings.database_path.chmod(0o600)


@pytest.fixture
async def database(settings: Settings, laid_out: None) -> AsyncIterator[Database]:
    opened = open_database(settings)
    yield opened
    await opened.close()


@pytest.fixture
def events() -> RecordedEvents:
    return RecordedEvents()


@pytest.fixture
def resources(settings: Settings, database: Database, events: RecordedEvents) -> Resources:
    return Resources(settings, database, events)


@pytest.fixture(autouse=True)
def fresh_logger() -> None:
    """Undo what `log.set_up` did in earlier tests of this process, which would hide lines from `caplog`."""
    logger = logging.getLogger(log.ROOT)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


class _RecordHandler(logging.Handler):
    """A handler that keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(log.Fields())
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    """Collect what the package logs, each record once, however other tests have set up logging."""
    logger, keeper = logging.getLogger(log.ROOT), _RecordHandler()
    handlers, level, propagate = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.propagate = [keeper], False
    logger.setLevel(logging.DEBUG)
    yield keeper.records
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture
def own_nodes() -> Iterator[None]:
    """Let a test declare nodes and outputs, and take back just these: other tests' toys stay."""
    registries: tuple[dict[Any, Any], ...] = (registry._nodes, registry._outputs)
    saved = [dict(registered) for registered in registries]
    yield
    for registered, before in zip(registries, saved, strict=True):
        registered.clear()
        registered.update(before)
    registry._invalidate_caches()
