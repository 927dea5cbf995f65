"""Settings that change while the server runs: checked, written to their file, then put in the place of those in use.

It knows the two files and refuses to know which settings a client may change.
"""

import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from invokeclone.kit.errors import Conflict, Unprocessable
from invokeclone.kit.resources import Resources
from invokeclone.kit.settings import Settings
from invokeclone.kit.settings_file import FILE, KEYS_FILE, read_file, read_keys, yaml_text
from invokeclone.kit.storage import ONLY_THE_OWNER, write_file

_changing = threading.Lock()


class SettingsFileUnreadable(Conflict):
    """A settings file holds something else than settings; nothing is written over it."""


def change(resources: Resources, given: Mapping[str, Any]) -> Settings:
    """Change settings for good, in `invokeai.yaml`; return all. For a thread: it writes. Raises Unprocessable."""
    with _changing:
        changed = _with(resources.settings, given)
        root = changed.root
        file, _unknown, wrong = read_file(root / FILE)
        _refuse(wrong)
        values = {"schema_version": resources.settings.schema_version, **file, **_plain(changed, given)}
        write_file(root / FILE, yaml_text(values).encode(), _mode(root / FILE))
        resources.settings = changed
    return changed


def change_keys(resources: Resources, given: Mapping[str, str | None]) -> Settings:
    """Change keys and addresses of external services for good, in `api_keys.yaml`; return all settings. For a thread.

    None takes a value out; where `invokeai.yaml` has one too, a null in its own file hides that.
    """
    with _changing:
        changed = _with(resources.settings, given)
        root = changed.root
        keys, _unknown, wrong = read_keys(root)
        file, _unknown, wrong_too = read_file(root / FILE)
        _refuse(wrong + wrong_too)
        values = {name: value for name, value in {**keys, **given}.items() if value is not None or name in file}
        _write_keys(root / KEYS_FILE, values)
        resources.settings = changed
    return changed


def _mode(file: Path) -> int:
    """Return what a settings file allows: it may hold tokens, so a new one is its owner's alone."""
    return stat.S_IMODE(file.stat().st_mode) if file.exists() else ONLY_THE_OWNER


def _write_keys(file: Path, values: Mapping[str, Any]) -> None:
    if values or file.exists():
        write_file(file, yaml_text(values).encode(), ONLY_THE_OWNER)


def _with(settings: Settings, given: Mapping[str, Any]) -> Settings:
    values = {name: getattr(settings, name) for name in settings.model_fields_set}
    try:
        return Settings(**{**values, **given})
    except ValidationError as error:
        raise Unprocessable(str(error.errors()[0]["msg"])) from error


def _plain(settings: Settings, given: Mapping[str, Any]) -> dict[str, Any]:
    return settings.model_dump(mode="json", include=set(given))


def _refuse(wrong: list[str]) -> None:
    if wrong:
        raise SettingsFileUnreadable(wrong[0])
