"""Reading settings: arguments, then `INVOKEAI_*`, then the two files in the root, then the defaults.

`api_keys.yaml` contains `external_*` only and takes precedence over `invokeai.yaml`. Each mistake is reported in one
line. Also writes the example file.
"""

import os
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from invokeclone.kit.config.limits import Limits
from invokeclone.kit.config.no_effect import REPORTED
from invokeclone.kit.config.settings import Settings

PREFIX = "INVOKEAI_"
FILE = "invokeai.yaml"
KEYS_FILE = "api_keys.yaml"
KEYS_PREFIX = "external_"
"""Prefix of the settings that are stored in a separate file, readable by its owner only."""
GROUP = "limits"
"""The setting that contains nested settings."""
FIELDS: dict[str, FieldInfo] = {name: field for name, field in Settings.model_fields.items() if name != "root"}


class SettingsError(Exception):
    """Settings that cannot be used; `lines` has one message per mistake."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        super().__init__("\n".join(lines))


def find_root(root: Path | None, environment: Mapping[str, str]) -> Path:
    """Return the root folder: the argument, `INVOKEAI_ROOT`, or `~/invokeai`."""
    folder = root or environment.get(f"{PREFIX}ROOT") or "~/invokeai"
    return Path(folder).expanduser().absolute()


def load_settings(
    root: Path | None = None, environment: Mapping[str, str] | None = None, **overrides: Any
) -> tuple[Settings, list[str]]:
    """Return the settings, and one line per value without an effect: of an unknown or unused setting, from old files.

    Overrides that are None are ignored. Raises SettingsError with one line per invalid value.
    """
    environment = os.environ if environment is None else environment
    root_folder = find_root(root, environment)
    file = root_folder / FILE
    from_file, unknown, mistakes = read_file(file)
    from_keys, unknown_keys, wrong_keys = read_keys(root_folder)
    unknown += unknown_keys
    mistakes += wrong_keys
    from_environment = _read_environment(environment, unknown)
    arguments = {name: value for name, value in overrides.items() if value is not None}
    values = from_file | from_keys | {name: value for name, (_, value) in from_environment.items()} | arguments
    sources = {name: f"{file}: {name}" for name in from_file}
    sources |= {name: f"{root_folder / KEYS_FILE}: {name}" for name in from_keys}
    sources |= {name: variable for name, (variable, _) in from_environment.items()}
    sources |= {name: f"--{name.replace('_', '-')}" for name in arguments}
    try:
        settings = Settings(root=root_folder, **values)
    except ValidationError as error:
        mistakes += list(_explain(error, values, sources, str(file)))
    if mistakes:
        raise SettingsError(mistakes)
    return settings, unknown + _without_effect(settings, sources)


def _without_effect(settings: Settings, sources: Mapping[str, str]) -> list[str]:
    """Return a line per setting that was changed although nothing reads it; keys of services are not reported."""
    return [
        f"{source}: has no effect. {REPORTED[name].replace('`', '')}"
        for name, source in sources.items()
        if name in REPORTED and getattr(settings, name) != FIELDS[name].default
    ]


def read_keys(root: Path) -> tuple[dict[str, Any], list[str], list[str]]:
    """Return the `external_*` settings of `<root>/api_keys.yaml`, a line per other name, and a line per read error."""
    values, unknown, mistakes = read_file(root / KEYS_FILE)
    foreign = [name for name in values if not name.startswith(KEYS_PREFIX)]
    unknown += [f"{root / KEYS_FILE}: {name}: belongs in {FILE}, ignored here" for name in foreign]
    return {name: value for name, value in values.items() if name not in foreign}, unknown, mistakes


def read_file(file: Path) -> tuple[dict[str, Any], list[str], list[str]]:
    """Return the known values of the file, a line per unknown key, and a line per read error."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, [], []
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return {}, [], [f"{file}: cannot be read: {' '.join(str(error).split())}"]
    if content is None:
        return {}, [], []
    if not isinstance(content, dict):
        return {}, [], [f"{file}: must contain `name: value` lines"]
    values = {str(key): value for key, value in content.items() if str(key) in FIELDS}
    unknown = [f"{file}: {key}: no such setting, ignored" for key in content if str(key) not in FIELDS]
    # an empty value means "not set" unless the setting is nullable
    return (
        {k: v for k, v in values.items() if v is not None or type(None) in get_args(FIELDS[k].annotation)},
        unknown,
        [],
    )


def _read_environment(environment: Mapping[str, str], unknown: list[str]) -> dict[str, tuple[str, Any]]:
    values: dict[str, tuple[str, Any]] = {}
    for variable, text in environment.items():
        if not variable.upper().startswith(PREFIX) or variable.upper() == f"{PREFIX}ROOT":
            continue
        name = variable[len(PREFIX) :].lower()
        if name not in FIELDS:
            unknown.append(f"{variable}: no such setting, ignored")
            continue
        values[name] = (variable, text if FIELDS[name].annotation is str else _parse(text))
    return values


def _parse(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _explain(error: ValidationError, values: dict[str, Any], sources: dict[str, str], file: str) -> Iterator[str]:
    names = set()
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if name in names:
            continue
        names.add(name)
        inside = [str(part) for part in problem["loc"][1:]] if name == GROUP else []
        location = ".".join([sources.get(name, file), *inside])
        input_text = f" (got {problem['input']!r})" if inside else f" (got {values[name]!r})" if name in values else ""
        yield f"{location}: {problem['msg'].removeprefix('Value error, ')}{input_text}"


def example() -> str:
    """Return an `invokeai.yaml` with every setting at its default, commented out and described."""
    lines = [
        "# All settings with their defaults. Copy those you change to <root>/invokeai.yaml, without the leading '# '.",
        "# Each can also be set as INVOKEAI_<NAME> in the environment, which takes precedence over the file.",
    ]
    defaults = Settings().values()
    for name, field in FIELDS.items():
        if name == GROUP:
            lines += _limits(field.description or "")
            continue
        lines += ["", *textwrap.wrap(field.description or "", 110, initial_indent="## ", subsequent_indent="## ")]
        value = yaml.safe_dump({name: defaults[name]}, default_flow_style=True, width=1000).strip()
        lines.append(f"# {value[1:-1]}")
    return "\n".join(lines) + "\n"


def _limits(description: str) -> list[str]:
    lines = ["", f"## {description}", f"# {GROUP}:"]
    for name, field in Limits.model_fields.items():
        lines += [f"##   {field.description}", f"#   {name}: {field.default}"]
    return lines


def yaml_text(values: Mapping[str, Any]) -> str:
    """Return the text of a settings file with `values`."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
