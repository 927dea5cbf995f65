"""Settings that only the environment of a root's server has, for commands that run without it.

`serve` writes those that decide which data is used, without passwords, to a file in the root. A command that would use
other data, such as the SQLite file of a root whose server uses PostgreSQL, is refused.
"""

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from invokeclone.cli.main import CommandError
from invokeclone.kit import log
from invokeclone.kit.config import settings_file
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files.storage import remove_file, write_file
from invokeclone.kit.storage.addresses import environment_endpoints

FILE = ".invokeclone.environment.json"
Data = Literal["database", "images", "models"]
"""Kinds of data; those of images are also those of videos, presets and workflows."""
DATABASE, STORAGE = "database_url", "storage_url"
ENDPOINT = "storage_endpoint"
FOLDERS = ("outputs_dir", "style_presets_dir", "workflow_thumbnails_dir")
DATA: dict[Data, tuple[str, ...]] = {
    "database": (DATABASE, "db_dir"),
    "images": (STORAGE, ENDPOINT, *FOLDERS),
    "models": ("models_dir",),
}
"""Settings that decide which data is used, an address before those that it makes inactive."""
NAMES = tuple(name for names in DATA.values() for name in names)
MULTIUSER = "multiuser"
_POSTGRES_PORT = 5432

_log = log.get("server_environment")


def as_server(settings: Settings, uses: Collection[Data]) -> Settings:
    """Return the settings of a command that `uses` these kinds of data, with the server's `multiuser`.

    Raises CommandError if the command would use other data than the server.
    """
    recorded = _read(settings.root)
    if different := _different(settings, recorded, uses):
        raise _other_data(settings.root, recorded, different, "this command")
    if isinstance(recorded.get(MULTIUSER), bool) and not _variable(MULTIUSER):
        return settings.model_copy(update={MULTIUSER: recorded[MULTIUSER]})
    return settings


def check_server(settings: Settings) -> None:
    """Raise CommandError if a server would use other data than the last one because its environment lacks a setting.

    Other values that are set, in the environment or the settings file, are a change on purpose.
    """
    recorded = _read(settings.root)
    different = _different(settings, recorded, DATA)
    if ENDPOINT in different and environment_endpoints():
        different.remove(ENDPOINT)
    lacking = [name for name in different if name not in settings.model_fields_set or _variable(name) is not None]
    if lacking:
        raise _other_data(settings.root, recorded, lacking, "this server")
    for name in different:
        _log.warning(
            "%s was %s in the environment of the last server, and is now that of the file", name, recorded[name]
        )


def record(settings: Settings) -> None:
    """Write the settings that come from the environment of this server; no file if there are none. Raises OSError."""
    names = [name for name in (*NAMES, MULTIUSER) if _variable(name) or (name == ENDPOINT and _is_s3_of_aws(settings))]
    values = {name: _comparable(settings, name) for name in names}
    file = settings.root / FILE
    if not values:
        remove_file(file)
    elif values != _read(settings.root):
        write_file(file, json.dumps(values, indent=2).encode() + b"\n")


def _is_s3_of_aws(settings: Settings) -> bool:
    """Return whether the variables of AWS decide which S3 service is used, also if there are none."""
    return (settings.storage_url or "").startswith("s3:") and settings.storage_endpoint is None


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


def _different(settings: Settings, recorded: dict[str, Any], uses: Collection[Data]) -> list[str]:
    """Return the settings whose recorded value is another one, without those that are set or inactive on purpose."""
    different: list[str] = []
    addresses = {name: _comparable(settings, name) for name in (DATABASE, STORAGE)}
    for name in (name for kind in uses for name in DATA[kind]):
        is_other = name in recorded and recorded[name] != _comparable(settings, name) and not _variable(name)
        if is_other and _is_active(name, addresses):
            different.append(name)
            if name in addresses:
                addresses[name] = recorded[name]
    return different


def _is_active(name: str, addresses: dict[str, Any]) -> bool:
    if name == "db_dir":
        return addresses[DATABASE] is None
    if name == ENDPOINT:
        return str(addresses[STORAGE]).startswith("s3:")
    return name not in FOLDERS or addresses[STORAGE] is None


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
    if name == ENDPOINT and value is None and _is_s3_of_aws(settings):
        value = next(iter(environment_endpoints()), None)
    if value is not None and name in (STORAGE, ENDPOINT):
        return _without_secrets(value)
    return _database(value) if name == DATABASE and value is not None else value


def _without_secrets(address: str) -> str:
    """Return an address without user, password, query and fragment."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return _not_an_address(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _not_an_address(text: str) -> str:
    return f"not an address, {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _database(address: str) -> str:
    """Return which database an address names, without the user and the options of the connection."""
    try:
        parts = make_url(address)
    except (ArgumentError, ValueError):
        return _not_an_address(address)
    query = {name: value if isinstance(value, str) else ",".join(value) for name, value in parts.query.items()}
    port = str(parts.port or query.get("port") or _POSTGRES_PORT)
    host = query.get("host")
    location = {} if host is None else {"host": host if host.startswith("/") else host.lower()}
    if parts.host is None and port != str(_POSTGRES_PORT):
        location["port"] = port
    location_only = URL.create(
        "postgresql",
        host=parts.host and parts.host.lower(),
        port=int(port) if parts.host and port.isdecimal() else None,
        database=parts.database,
        query=location,
    )
    return location_only.render_as_string()


def _other_data(root: Path, recorded: dict[str, Any], names: list[str], subject: str) -> CommandError:
    variables = ", ".join(_variable_text(name, recorded[name]) for name in names)
    defaults = (settings_file.FIELDS[name].default for name in names)
    purpose = " ".join(
        f"{settings_file.PREFIX}{name.upper()}={'null' if default is None else default}"
        for name, default in zip(names, defaults, strict=True)
    )
    return CommandError(
        f"the server of {root} has {variables} in its environment, and {subject} would use other data: set the same in "
        f"this environment or in {root / settings_file.FILE}; {purpose} selects the default on purpose"
    )


def _variable_text(name: str, value: Any) -> str:
    variable = f"{settings_file.PREFIX}{name.upper()}"
    if name == ENDPOINT:
        variable += " or AWS_ENDPOINT_URL"
        return f"no {variable}" if value is None else f"{variable} ({value})"
    return f"{variable} ({'null' if value is None else value})"
