"""Every family's rules and record classes, found by looking through `invokeclone.families`; adding a folder is enough.

It imports only `spec` modules, which are free of torch, and refuses to know their names.
"""

import functools
import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from typing import Any

from invokeclone.models.configs import ModelConfig, Unknown_Config
from invokeclone.models.rules import Family, Rule

_FAMILIES = "invokeclone.families"


@functools.cache
def families() -> tuple[Family, ...]:
    """Return the `FAMILY` of every family that has a `spec`, by name of its folder."""
    package = importlib.import_module(_FAMILIES)
    names = sorted(
        f"{_FAMILIES}.{module.name}.spec" for module in pkgutil.iter_modules(package.__path__) if module.ispkg
    )
    return tuple(importlib.import_module(name).FAMILY for name in names if importlib.util.find_spec(name))


def rules() -> tuple[Rule, ...]:
    """Return every rule of every family."""
    return tuple(rule for family in families() for rule in family.rules)


@functools.cache
def config_classes() -> tuple[type[ModelConfig], ...]:
    """Return every record class, each once; the one for unknown models is last."""
    found = [config for family in families() for config in (*(rule.config for rule in family.rules), *family.configs)]
    return (*dict.fromkeys(found), Unknown_Config)


def fixed(config: type[ModelConfig]) -> dict[str, Any]:
    """Return the fields that make up the class's tag: those of type, format, base and variant that have one value only."""
    return {
        name: config.model_fields[name].default
        for name in ("type", "format", "base", "variant")
        if name in config.model_fields and not config.model_fields[name].is_required()
    }


def parse(record: object) -> ModelConfig:
    """Return `record` (a mapping) as the class that its type, format, base and variant belong to.

    Raises ValueError (pydantic's is one) when there is no such class or a field does not fit it.
    """
    if not isinstance(record, Mapping):
        raise ValueError("a model record must be an object")  # noqa: TRY004  (pydantic reports ValueErrors)
    for config in config_classes():
        if all(record.get(name) == value for name, value in fixed(config).items()):
            return config.model_validate(record)
    tag = ".".join(str(record.get(name)) for name in ("type", "format", "base"))
    raise ValueError(f"no model class for {tag}")
