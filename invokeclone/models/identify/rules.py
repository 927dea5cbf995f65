"""Identification rules: one rule per record class, composed of small functions.

Does not depend on any family.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from invokeclone.graph.vocabulary.architectures import Architecture
from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles


class Mismatch(Exception):
    """The model does not match the rule; the message gives the reason."""


@dataclass(frozen=True)
class Rule:
    """Criteria for a file or folder to get a record of class `config`.

    `recognizes` raises Mismatch unless the model is of this kind. `base` returns the detected architecture, or None if
    it cannot be detected and the user must specify it; without `base`, the architecture is that of the class. With
    `base_is_guess`, the detected base is only a guess (by name, for example), and a user's override takes precedence.
    `detectors` return the values of further fields that the user has not set.
    """

    config: type[ModelConfig]
    recognizes: Callable[[ModelFiles], None]
    base: Callable[[ModelFiles], BaseModelType | None] | None = None
    detectors: Mapping[str, Callable[[ModelFiles], Any]] = field(default_factory=dict)
    base_is_guess: bool = False


@dataclass(frozen=True)
class UnsupportedKind:
    """A kind of model without a record class. It is recognized so that its files are not mistaken for another kind."""

    name: str
    """Shown to users, as in "it is <name>"."""
    recognizes: Callable[[ModelFiles], bool]


@dataclass(frozen=True)
class Family:
    """The export `FAMILY` of the `spec.py` of a family or component; record classes are read from the module itself."""

    rules: tuple[Rule, ...]
    architectures: tuple[Architecture, ...] = ()
    """One per base that the family generates images for."""
    unsupported: tuple[UnsupportedKind, ...] = ()
    """Related kinds whose tensors resemble the family's."""


def require(condition: object, reason: str) -> None:
    """Raise Mismatch with `reason` unless `condition` holds."""
    if not condition:
        raise Mismatch(reason)
