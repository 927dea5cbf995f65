"""How a family says what its models look like: one rule for each config class, made of small functions.

A rule is tried on a file or folder. Its `recognises` says no by raising Mismatch; its `detects` fill the record's fields
unless whoever installs the model has stated them. It refuses to know any family.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from invokeclone.graph.vocabulary.architectures import Architecture
from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles


class Mismatch(Exception):
    """The model is not of the kind that the rule describes; the text says why."""


@dataclass(frozen=True)
class Rule:
    """What a file or folder must be like to get a record of class `config`.

    `recognises` raises Mismatch unless the model is of this kind. `base` tells the architecture as far as the model shows
    it, None when it doesn't: then whoever installs it must say it; without a `base`, what is recognised is of the class's
    own. Where `base` only guesses, by a name say, what is stated wins. `detects` finds the values of further fields.
    """

    config: type[ModelConfig]
    recognizes: Callable[[ModelFiles], None]
    base: Callable[[ModelFiles], BaseModelType | None] | None = None
    detectors: Mapping[str, Callable[[ModelFiles], Any]] = field(default_factory=dict)
    base_is_guess: bool = False


@dataclass(frozen=True)
class Family:
    """What the `spec.py` of a family or component exports as `FAMILY`. Record classes are found in the module itself."""

    rules: tuple[Rule, ...]
    architectures: tuple[Architecture, ...] = ()
    """One for each base that the family makes images for."""


def require(condition: object, reason: str) -> None:
    """Raise Mismatch with `reason` unless `condition` holds."""
    if not condition:
        raise Mismatch(reason)
