"""Small names that packs import from InvokeAI's internal modules and that have no counterpart in this codebase."""

import logging
import random

from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.version import API_VERSION

__version__ = API_VERSION
"""The InvokeAI version that the interface is compatible with, which packs compare."""

SEED_MAX = 2**32 - 1
_log = log.get("custom_nodes")
_settings: list[Settings] = []

debug = _log.debug
info = _log.info
warning = _log.warning
error = _log.error
critical = _log.critical


def get_random_seed() -> int:
    """Return a random seed."""
    return random.randint(0, SEED_MAX)


def use(settings: Settings) -> None:
    """Set the settings that packs read."""
    _settings[:] = [settings]


def get_config() -> Settings:
    """Return the settings."""
    return _settings[0] if _settings else Settings()


class InvokeAILogger:
    """Logger factory for packs."""

    @staticmethod
    def get_logger(name: str = "node") -> logging.Logger:
        """Return a logger for a pack."""
        return log.get(f"custom_nodes.{name}")
