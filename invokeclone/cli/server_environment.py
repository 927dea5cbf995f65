"""Settings that only the environment of a root's server has, for commands that run without it.

`serve` writes those that decide which data is used, without passwords, to a file in the root. A command that would use
other data, such as the SQLite file of a root whose server uses PostgreSQL, is refused.
"""

import json
import os
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from invokeclone.cli.main import CommandError
from invokeclone.kit import log
from invokeclone.kit.config import settings_file
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files.storage import remove_file, write_file

FILE = ".invokeclone.environment.json"
DATA = (
    "database_url",
    "db_dir",
    "storage_url",
    "storage_endpoint",
    "outputs_dir",
    "style_presets_dir",
    "workflow_thumbnails_dir",
    "models_dir",
)
"""Settings that decide which data is used."""
ACCOUNTS = "multiuser"

_log = log.get("server_environment")


def as_server(settings: Settings) -> Settings:
    """Return the settings of a command, with the server's `multiuser`. Raises CommandError if it would use other data."""
    recorded = _read(settings.root)
    different = [name for name in _different(settings, recorded) if not _variable(name)]
    if different:
        raise _other_data(settings.root, recorded, different, "this command")
    if isinstance(recorded.get(ACCOUNTS), bool) and not _variable(ACCOUNTS):
        return settings.model_copy(update={ACCOUNTS: recorded[ACCOUNTS]})
    return settings


def check_server(settings: Settings) -> None:
    """Raise CommandError if a server would use other data than the last one because its environment lacks a setting.

    Other values that are set, in the environment or the settings file, are a change on purpose.
    """
    recorded = _read(settings.root)
    different = [name for name in _different(settings, recorded) if not _variable(name)]
    lacking = [name for name in different if name not in settings.model_fields_set or _variable(name) is not None]
    if lacking:
        raise _other_data(settings.root, recorded, lacking, "this server")
    for name in different:
        _log.warning(
            "%s was %s in the environment of the last server, and is now that of the file", name, recorded[name]
        )


def record(settings: Settings) -> None:
    """Write the settings that come from the environment of this server; no file if there are none. Raises OSError."""
    values = {name: _comparable(settings, name) for name in (*DATA, ACCOUNTS) if _variable(name)}
    file = settings.root / FILE
    if not values:
        remove_file(file)
    elif values != _read(settings.root):
        write_file(file, json.dumps(values, indent=2).encode() + b"\n")


def _read(root: Path) -> dict[str, Any]:
    file = root / FILE
    try:
        return dict(json.loads(file.read_bytes()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CommandError(
            f"{file} cannot be read ({reason}): it has the settings of the server's environment; remove it, and start the server"
        ) from error


def _different(settings: Settings, recorded: dict[str, Any]) -> list[str]:
    return [name for name in DATA if name in recorded and recorded[name] != _comparable(settings, name)]


def _variable(name: str) -> str | None:
    """Return the text of a setting's environment variable, None without one; an empty one is not set on purpose."""
    variable = settings_file.PREFIX + name.upper()
    return next((text.strip() for key, text in os.environ.items() if key.upper() == variable), None)


def _comparable(settings: Settings, name: str) -> Any:
    """Return a value without passwords, the same wherever the root is mounted."""
    value = getattr(settings, name)
    if isinstance(value, Path):
        path = settings.under_root(value)
        root = settings.root.absolute()
        return str(path.relative_to(root) if path.is_relative_to(root) else path)
    return _database(value) if name == "database_url" and value is not None else value


def _database(address: str) -> str:
    """Return which database an address names, without the user and the options of the connection."""
    try:
        parts = make_url(address)
    except (ArgumentError, ValueError):
        return "not an address"
    location = {name: value for name, value in parts.query.items() if name in ("host", "port")}
    port = parts.port or (5432 if parts.host else None)
    location_only = URL.create("postgresql", host=parts.host, port=port, database=parts.database, query=location)
    return location_only.render_as_string()


def _other_data(root: Path, recorded: dict[str, Any], names: list[str], subject: str) -> CommandError:
    variables = ", ".join(f"{settings_file.PREFIX}{name.upper()} ({recorded[name] or 'null'})" for name in names)
    defaults = (settings_file.FIELDS[name].default for name in names)
    purpose = " ".join(
        f"{settings_file.PREFIX}{name.upper()}={'null' if default is None else default}"
        for name, default in zip(names, defaults, strict=True)
    )
    return CommandError(
        f"the server of {root} has {variables} in its environment, and {subject} would use other data: set the same in "
        f"this environment or in {root / settings_file.FILE}; {purpose} selects the default on purpose"
    )
