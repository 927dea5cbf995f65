"""Lookup of models by name, for APIs that do not use keys."""

from collections.abc import Sequence
from pathlib import PurePath

from invokeclone.models.configs.model_config import ModelConfig

HASH_DIGITS = 10
"""Number of leading hash digits by which clients refer to models."""


def hash_digits(config: ModelConfig) -> str:
    """Return the hash of a record without its algorithm."""
    return config.hash.rpartition(":")[2]


def find_by_name(configs: Sequence[ModelConfig], name: str, base: str | None = None) -> ModelConfig | None:
    """Return the model with this key or name, else with this name, file or hash ignoring case; None if there is none.

    Among several, models of `base` take precedence, then the order of `configs`.
    """
    candidates = sorted(configs, key=lambda config: base is not None and config.base != base)
    exact = name.strip()
    folded = exact.casefold()
    return next((config for config in candidates if exact in (config.key, config.name)), None) or next(
        (config for config in candidates if folded in _casefold_names(config)), None
    )


def _casefold_names(config: ModelConfig) -> set[str]:
    digits = hash_digits(config)
    file = PurePath(config.path.replace("\\", "/"))
    names = (config.name, config.path, file.name, file.stem, digits, digits[:HASH_DIGITS])
    return {name.casefold() for name in names if name}
