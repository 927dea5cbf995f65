"""Settings and logging of a command."""

import argparse
import sys
from collections.abc import Collection
from typing import Any

from invokeclone.cli import server_environment
from invokeclone.cli.main import CommandError
from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.config.settings_file import SettingsError, load_settings


def settings_for(
    arguments: argparse.Namespace,
    *,
    uses: Collection[server_environment.Data],
    level: str | None = None,
    **overrides: Any,
) -> Settings:
    """Return the settings and set up logging, at `level` unless it is None; raises CommandError.

    A command that `uses` these kinds of data of the root must use those of the root's server.
    """
    try:
        settings, unknown = load_settings(arguments.root, **overrides)
        log.set_up(
            level or settings.log_level,
            settings.log_format,
            settings.log_handlers,
            network_level=settings.log_level_network,
            as_json=settings.log_json,
        )
    except SettingsError as error:
        raise CommandError("; ".join(error.lines)) from error
    except ValueError as error:
        raise CommandError(str(error)) from error
    for line in unknown:
        sys.stderr.write(f"invokeclone: {line}\n")
    return server_environment.as_server(settings, uses) if uses else settings
