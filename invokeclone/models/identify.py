"""What a file or folder is: every family's rules are tried on it. Nothing is written; it refuses to know where models live."""

from typing import Any

from pydantic import ValidationError

from invokeclone.graph.taxonomy import ModelType
from invokeclone.models import registry
from invokeclone.models.configs import ModelConfig, Unknown_Config
from invokeclone.models.errors import InvalidModel
from invokeclone.models.files import OnDisk
from invokeclone.models.rules import Mismatch, Rule, require

_FIRST = (ModelType.Main, ModelType.LoRA, ModelType.CLIPEmbed)
"""Types that win, in this order, when a model is several things at once."""


def identify(model: OnDisk, facts: dict[str, Any], stated: dict[str, Any], *, allow_unknown: bool) -> ModelConfig:
    """Return the record of `model`. Blocking: reads headers and JSON files.

    `facts` are fields of every record (key, hash, path, …). `stated` are the fields that somebody vouches for; they
    replace what would be detected and must fit the class. Raises InvalidModel when the files are damaged or of no
    known kind (with `allow_unknown` that makes an Unknown_Config instead, unless more than that was stated).
    """
    model.check()
    fits, reasons = [], []
    for rule in registry.rules():
        try:
            fits.append(_apply(rule, model, facts, stated))
        except Mismatch as mismatch:
            reasons.append(f"{rule.config.__name__}: {mismatch}")
    if fits:
        return min(fits, key=lambda config: _FIRST.index(config.type) if config.type in _FIRST else len(_FIRST))
    unfit = set(stated) - set(Unknown_Config.model_fields) | {
        name for name in ("type", "format", "base") if name in stated
    }
    if allow_unknown and all(stated.get(name) == "unknown" for name in unfit):
        return Unknown_Config.model_validate(facts | stated)
    raise InvalidModel(f"{model.path.name} is no model of a known kind" + "".join(f"; {reason}" for reason in reasons))


def _apply(rule: Rule, model: OnDisk, facts: dict[str, Any], stated: dict[str, Any]) -> ModelConfig:
    """Return the record that `rule` makes of `model`; raises Mismatch when it makes none."""
    fixed = registry.fixed(rule.config)
    for name, value in stated.items():
        require(name in rule.config.model_fields, f"it has no {name}")
        require(name not in fixed or fixed[name] == value, f"its {name} is {fixed.get(name)}, not {value}")
    rule.recognises(model)
    base = stated.get("base") or rule.base(model)
    require(base, "its base cannot be seen; state it")
    require(base == fixed["base"], f"its base is {fixed['base']}, the model's is {base}")
    found = {name: detect(model) for name, detect in rule.detects.items() if name not in stated}
    try:
        return rule.config.model_validate(facts | found | stated)
    except ValidationError as error:
        raise Mismatch("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())) from error
