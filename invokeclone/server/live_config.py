"""Runtime changes of settings: validate, write to the settings file, then replace the active settings.

The routes decide which settings a client may change.
"""

import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.config.settings_file import FIELDS, FILE, KEYS_FILE, read_file, read_keys, yaml_text
from invokeclone.kit.errors import Conflict, Unprocessable
from invokeclone.kit.files import paths
from invokeclone.kit.files.storage import OWNER_FILE_MODE, write_file
from invokeclone.kit.resources import Resources

_changing = threading.Lock()


class SettingsFileUnreadable(Conflict):
    """A settings file is malformed; it is not overwritten."""


def change(resources: Resources, changes: Mapping[str, Any]) -> Settings:
    """Change settings persistently in `invokeai.yaml` and return all. Blocks on file I/O. Raises Unprocessable."""
    with _changing:
        changed = _with_changes(resources.settings, changes)
        root = changed.root
        file, _unknown, problems = read_file(root / FILE)
        _refuse(problems)
        values = {"schema_version": resources.settings.schema_version, **file, **_plain(changed, changes)}
        _check_folders(changed, changes)
        text = _to_yaml(values)
        write_file(paths.real(root / FILE), text.encode(), _mode(root / FILE))  # a link of the user stays a link
        resources.settings = changed
    return changed


def change_keys(resources: Resources, changes: Mapping[str, str | None]) -> Settings:
    """Change keys and URLs of external providers persistently in `api_keys.yaml` and return all settings.

    Blocks on file I/O. None removes a value; if `invokeai.yaml` has one too, null in `api_keys.yaml` overrides it.
    """
    with _changing:
        changed = _with_changes(resources.settings, changes)
        root = changed.root
        keys, _unknown, problems = read_keys(root)
        file, _unknown, file_problems = read_file(root / FILE)
        _refuse(problems + file_problems)
        values = {name: value for name, value in {**keys, **changes}.items() if value is not None or name in file}
        _to_yaml({**file, **values})
        _write_keys(root / KEYS_FILE, values)
        resources.settings = changed
    return changed


def _mode(file: Path) -> int:
    """Return the mode for a settings file: it may contain tokens, so a new one is readable by its owner only."""
    return stat.S_IMODE(file.stat().st_mode) if file.exists() else OWNER_FILE_MODE


def _write_keys(file: Path, values: Mapping[str, Any]) -> None:
    if values or file.exists():
        write_file(paths.real(file), yaml_text(values).encode(), OWNER_FILE_MODE)


def _with_changes(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    values = {name: getattr(settings, name) for name in settings.model_fields_set}
    if changes.get("generation_devices") == []:  # in the file it is allowed, by who starts other workers
        raise Unprocessable("generation_devices: names no device")
    try:
        return Settings(**{**values, **changes})
    except ValidationError as error:
        first = error.errors()[0]
        message = str(first["msg"]).removeprefix("Value error, ")
        raise Unprocessable(f"{first['loc'][0]}: {message}" if first["loc"] else message) from error


def _to_yaml(values: Mapping[str, Any]) -> str:
    """Return the text of a settings file, parsed back to ensure that the next start can read it."""
    text = yaml_text(values)
    try:
        setting_values = {name: value for name, value in yaml.safe_load(text).items() if name in FIELDS}
        Settings(**setting_values)
    except ValidationError as error:
        first = error.errors()[0]
        raise Unprocessable(f"{first['loc'][0] if first['loc'] else FILE}: {first['msg']}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise Unprocessable(f"a value cannot be written to {FILE}: {' '.join(str(error).split())}") from error
    return text


def _check_folders(settings: Settings, changes: Mapping[str, Any]) -> None:
    """Raise Unprocessable for a folder that neither exists nor can be created."""
    for name in changes:
        value = getattr(settings, name)
        if not isinstance(value, Path) or not name.endswith(("_dir", "_path")):
            continue
        folder = settings.under_root(value)
        try:
            while not folder.exists():
                folder = folder.parent
            usable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
        except OSError:
            usable = False
        if not usable:
            raise Unprocessable(f"{name}: the folder {value} cannot be created: {folder} is not a writable folder")


def _plain(settings: Settings, changes: Mapping[str, Any]) -> dict[str, Any]:
    values = settings.values()
    return {name: values[name] for name in changes}


def _refuse(problems: list[str]) -> None:
    if problems:
        raise SettingsFileUnreadable(problems[0])
