"""Applications of this folder find a database: making one anew is for tests/kit and tests/whole."""

import shutil
from pathlib import Path

import pytest

from invokeclone.kit.config.settings import Settings


@pytest.fixture
def settings(settings: Settings, migrated: Path) -> Settings:
    settings.database_path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(migrated, settings.database_path)
    return settings
