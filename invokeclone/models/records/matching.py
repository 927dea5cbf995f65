"""Which model a name means, for every API that has names and no keys."""

from collections.abc import Sequence
from pathlib import PurePath

from invokeclone.models.configs.model_config import ModelConfig

HASH_DIGITS = 10
"""The first digits of a hash that clients name models by."""


def hash_digits(config: ModelConfig) -> str:
    """Return the hash of a record without its algorithm."""
    return config.hash.rpartition(":")[2]


def find_by_name(configs: Sequence[ModelConfig], name: str, base: str | None = None) -> ModelConfig | None:
    """Return the model of this key or name, else of this name, file or hash whatever the letters' case; None: there is none.

    Of several, one of `base` comes first, and then the first of `known`.
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
