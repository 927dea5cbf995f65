"""Rules, record classes and architectures of every family and component, from their `spec` modules.

Imports only `spec` modules, which do not import torch. New folders are discovered automatically.
"""

import functools
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Literal, get_origin

from invokeclone.graph.invocations import discovery
from invokeclone.graph.vocabulary.architectures import Architecture
from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.models.configs.model_config import ModelConfig, Unknown_Config
from invokeclone.models.identify.rules import Family, Rule, UnsupportedKind


@functools.cache
def _specs() -> tuple[ModuleType, ...]:
    return tuple(discovery.modules("spec"))


def families() -> tuple[Family, ...]:
    """Return every family and component."""
    return tuple(spec.FAMILY for spec in _specs())


@functools.cache
def architectures() -> Mapping[BaseModelType, Architecture]:
    """Return every architecture by its base."""
    return {architecture.base: architecture for family in families() for architecture in family.architectures}


@functools.cache
def rules() -> tuple[Rule, ...]:
    """Return every rule of every family."""
    return tuple(rule for family in families() for rule in family.rules)


@functools.cache
def list_unsupported_kinds() -> tuple[UnsupportedKind, ...]:
    """Return the kinds of model that are recognized but have no record class."""
    return tuple(kind for family in families() for kind in family.unsupported)


@functools.cache
def config_classes() -> tuple[type[ModelConfig], ...]:
    """Return every public record class that a `spec` declares; the one for unknown models is last."""
    return (
        *(config for spec in _specs() for config in vars(spec).values() if _is_declared(config, spec)),
        Unknown_Config,
    )


def _is_declared(value: object, spec: ModuleType) -> bool:
    if not isinstance(value, type) or not issubclass(value, ModelConfig):
        return False
    return value.__module__ == spec.__name__ and not value.__name__.startswith("_")


@functools.cache
def tag_fields(config: type[ModelConfig]) -> Mapping[str, Any]:
    """Return the tag of a record class: its fields type, format, base and variant where they are literals."""
    tag = {
        name: config.model_fields[name] for name in ("type", "format", "base", "variant") if name in config.model_fields
    }
    return {name: field.default for name, field in tag.items() if get_origin(field.annotation) is Literal}


def _tag(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(record.get(name)) for name in ("type", "format", "base", "variant")}


def parse(record: object) -> ModelConfig:
    """Return `record` (a mapping) as an instance of the class with its type, format, base and variant.

    If several classes match (a file and a folder of the same kind), the one whose fields are closest to the record's is
    used. Raises ValueError (pydantic's ValidationError is one) if there is no such class or a field is invalid.
    """
    if not isinstance(record, Mapping):
        raise ValueError("a model record must be an object")  # noqa: TRY004  (pydantic reports ValueErrors)
    matches = [config for config in config_classes() if tag_fields(config).items() <= _tag(record).items()]
    if matches:
        return min(matches, key=lambda config: len(set(record) ^ set(config.model_fields))).model_validate(record)
    tag = ".".join(str(record.get(name)) for name in ("type", "format", "base"))
    raise ValueError(f"no model class for {tag}")
