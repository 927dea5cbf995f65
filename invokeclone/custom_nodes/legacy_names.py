"""Small things that packs ask InvokeAI's inner modules for and that have no place of their own here."""

import logging
import random

from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.version import API_VERSION

__version__ = API_VERSION
"""What packs compare: the version whose interface this is."""

SEED_MAX = 2**32 - 1
_log = log.get("custom_nodes")
_settings: list[Settings] = []

debug = _log.debug
info = _log.info
warning = _log.warning
error = _log.error
critical = _log.critical


def get_random_seed() -> int:
    """Return a seed."""
    return random.randint(0, SEED_MAX)


def use(settings: Settings) -> None:
    """Give packs these settings."""
    _settings[:] = [settings]


def get_config() -> Settings:
    """Return the settings."""
    return _settings[0] if _settings else Settings()


class InvokeAILogger:
    """Where packs get their loggers."""

    @staticmethod
    def get_logger(name: str = "node") -> logging.Logger:
        """Return a logger for a pack."""
        return log.get(f"custom_nodes.{name}")
