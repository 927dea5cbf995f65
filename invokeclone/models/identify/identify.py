"""What a file or folder is: every family's rules are tried on it. Nothing is written; it refuses to know where models live."""

from typing import Any

from pydantic import ValidationError

from invokeclone.graph.vocabulary.taxonomy import ModelType
from invokeclone.models.configs.model_config import ModelConfig, Unknown_Config
from invokeclone.models.errors import InvalidModel
from invokeclone.models.files.on_disk import OnDisk
from invokeclone.models.identify import registry
from invokeclone.models.identify.rules import Mismatch, Rule, require

_FIRST = (ModelType.Main, ModelType.LoRA, ModelType.CLIPEmbed)
"""Types that win, in this order, when a model is several things at once."""

_MALFORMED = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""What rules stumble over where a model's settings have values of other types than they expect."""

_LAST = (ModelType.TextLLM, ModelType.SpandrelImageToImage, ModelType.TextualInversion)
"""Types that say the least of a model, so that any other wins."""


def identify(model: OnDisk, facts: dict[str, Any], stated: dict[str, Any], *, allow_unknown: bool) -> ModelConfig:
    """Return the record of `model`. Blocking: reads headers and JSON files.

    `facts` are fields of every record (key, hash, path, …). `stated` are the fields that somebody vouches for; they
    replace what would be detected and must fit the class. Raises InvalidModel when the files are damaged or of no
    known kind (with `allow_unknown` that makes an Unknown_Config instead, unless more than that was stated).
    """
    model.check()
    fits, reasons = [], []
    for rule in registry.rules():
        if not _recognised(rule, model, stated):
            continue
        try:
            fits.append(_record(rule, model, facts, stated))
        except Mismatch as mismatch:
            reasons.append(f"{rule.config.__name__}: {mismatch}")
        except _MALFORMED as error:
            reasons.append(f"{rule.config.__name__}: its settings are malformed ({error})")
    if fits:
        return min(fits, key=_rank)
    unfit = set(stated) - set(Unknown_Config.model_fields) | {
        name for name in ("type", "format", "base") if name in stated
    }
    if allow_unknown and all(stated.get(name) == "unknown" for name in unfit):
        return Unknown_Config.model_validate(facts | stated)
    claim = f" that has {', '.join(f'{name} {stated[name]}' for name in sorted(unfit))}" if unfit else ""
    raise InvalidModel(
        f"{model.path.name} is no model of a known kind{claim}" + "".join(f"; {each}" for each in reasons)
    )


def _rank(config: ModelConfig) -> int:
    if config.type in _FIRST:
        return _FIRST.index(config.type)
    return len(_FIRST) + (config.type in _LAST)


def _recognised(rule: Rule, model: OnDisk, stated: dict[str, Any]) -> bool:
    """Tell whether the model is of the rule's kind and the kind has the fields that are stated."""
    fixed, fields = registry.fixed(rule.config), rule.config.model_fields
    if any(name not in fields or fixed.get(name, value) != value for name, value in stated.items()):
        return False
    try:
        rule.recognises(model)
    except (Mismatch, *_MALFORMED):
        return False
    return True


def _record(rule: Rule, model: OnDisk, facts: dict[str, Any], stated: dict[str, Any]) -> ModelConfig:
    """Return the record that `rule` makes of a model of its kind; raises Mismatch when it makes none."""
    own = registry.fixed(rule.config)["base"]
    seen = rule.base(model) if rule.base else own
    base = stated.get("base") or seen if rule.guesses else seen or stated.get("base")
    require(base, "its base cannot be seen; state it")
    require(base == own, f"its base is {own}, the model's is {base}")
    found = {name: detect(model) for name, detect in rule.detects.items() if name not in stated}
    try:
        return rule.config.model_validate(facts | found | stated)
    except ValidationError as error:
        raise Mismatch("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())) from error
