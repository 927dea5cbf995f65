"""Every family's rules and record classes, found by looking through `invokeclone.families`; adding a folder is enough.

It imports only `spec` modules, which are free of torch, and refuses to know their names.
"""

import functools
import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Literal, get_origin

from invokeclone.models.configs import ModelConfig, Unknown_Config
from invokeclone.models.rules import Family, Rule

_FAMILIES = "invokeclone.families"


@functools.cache
def _specs() -> tuple[ModuleType, ...]:
    """Return the `spec` module of every family that has one, by name of its folder."""
    package = importlib.import_module(_FAMILIES)
    names = sorted(
        f"{_FAMILIES}.{module.name}.spec" for module in pkgutil.iter_modules(package.__path__) if module.ispkg
    )
    return tuple(importlib.import_module(name) for name in names if importlib.util.find_spec(name))


def families() -> tuple[Family, ...]:
    """Return every family."""
    return tuple(spec.FAMILY for spec in _specs())


@functools.cache
def rules() -> tuple[Rule, ...]:
    """Return every rule of every family."""
    return tuple(rule for family in families() for rule in family.rules)


@functools.cache
def config_classes() -> tuple[type[ModelConfig], ...]:
    """Return every record class that a `spec` declares publicly, each once; the one for unknown models is last."""
    return (
        *(config for spec in _specs() for config in vars(spec).values() if _is_declared(config, spec)),
        Unknown_Config,
    )


def _is_declared(value: object, spec: ModuleType) -> bool:
    if not isinstance(value, type) or not issubclass(value, ModelConfig):
        return False
    return value.__module__ == spec.__name__ and not value.__name__.startswith("_")


@functools.cache
def fixed(config: type[ModelConfig]) -> Mapping[str, Any]:
    """Return the fields that make up the class's tag: those of type, format, base and variant that have one value only."""
    tag = {
        name: config.model_fields[name] for name in ("type", "format", "base", "variant") if name in config.model_fields
    }
    return {name: field.default for name, field in tag.items() if get_origin(field.annotation) is Literal}


def _tag(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(record.get(name)) for name in ("type", "format", "base", "variant")}


def parse(record: object) -> ModelConfig:
    """Return `record` (a mapping) as the class that its type, format, base and variant belong to.

    Where they belong to several (a file and a folder of the same), it is the class that has the record's other fields.

    Raises ValueError (pydantic's is one) when there is no such class or a field does not fit it.
    """
    if not isinstance(record, Mapping):
        raise ValueError("a model record must be an object")  # noqa: TRY004  (pydantic reports ValueErrors)
    fitting = [config for config in config_classes() if fixed(config).items() <= _tag(record).items()]
    if fitting:
        return min(fitting, key=lambda config: len(set(record) ^ set(config.model_fields))).model_validate(record)
    tag = ".".join(str(record.get(name)) for name in ("type", "format", "base"))
    raise ValueError(f"no model class for {tag}")
