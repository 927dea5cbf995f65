"""Identification of a model file or folder: tries the rules of every family and builds the record. Writes nothing."""

from typing import Any

from pydantic import ValidationError

from invokeclone.graph.vocabulary.taxonomy import ModelType
from invokeclone.models.configs.model_config import ModelConfig, Unknown_Config
from invokeclone.models.errors import UnidentifiedModel
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify import registry
from invokeclone.models.identify.rules import Mismatch, Rule, require

_PREFERRED_TYPES = (ModelType.Main, ModelType.LoRA, ModelType.CLIPEmbed)
"""Types that take precedence, in this order, when several rules match."""

_MALFORMED_ERRORS = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""Exceptions raised by rules when a model's JSON files contain values of unexpected types."""

_FALLBACK_TYPES = (ModelType.TextLLM, ModelType.SpandrelImageToImage, ModelType.TextualInversion)
"""The least specific types: any other takes precedence."""


def identify(
    model: ModelFiles, record_fields: dict[str, Any], overrides: dict[str, Any], *, allow_unknown: bool
) -> ModelConfig:
    """Return the record of `model`. Blocking: reads headers and JSON files.

    `record_fields` are the fields common to all records (key, hash, path, …). `overrides` are fields set by the user;
    they replace detected values and must be valid for the class. Raises InvalidModel if the files are damaged or match
    no rule. With `allow_unknown`, files that match no rule give an Unknown_Config unless `overrides` exclude that.
    """
    model.check()
    matches, reasons = [], []
    for rule in registry.rules():
        if not _matches_rule(rule, model, overrides):
            continue
        try:
            matches.append(_build_record(rule, model, record_fields, overrides))
        except Mismatch as mismatch:
            reasons.append(f"{rule.config.__name__}: {mismatch}")
        except _MALFORMED_ERRORS as error:
            reasons.append(f"{rule.config.__name__}: its configuration files are malformed ({error})")
    if matches:
        return min(matches, key=_rank)
    unmatched_fields = set(overrides) - set(Unknown_Config.model_fields) | {
        name for name in ("type", "format", "base") if name in overrides
    }
    if allow_unknown and all(overrides.get(name) == "unknown" for name in unmatched_fields):
        return Unknown_Config.model_validate(record_fields | overrides)
    claim = (
        f" with {', '.join(f'{name} {overrides[name]}' for name in sorted(unmatched_fields))}"
        if unmatched_fields
        else ""
    )
    raise UnidentifiedModel(
        f"{model.path.name} is not a model of a known kind{claim}" + "".join(f"; {reason}" for reason in reasons)
    )


def _rank(config: ModelConfig) -> int:
    if config.type in _PREFERRED_TYPES:
        return _PREFERRED_TYPES.index(config.type)
    return len(_PREFERRED_TYPES) + (config.type in _FALLBACK_TYPES)


def _matches_rule(rule: Rule, model: ModelFiles, overrides: dict[str, Any]) -> bool:
    """Return whether the rule recognizes the model and its record class allows the overrides."""
    tag, fields = registry.tag_fields(rule.config), rule.config.model_fields
    if any(name not in fields or tag.get(name, value) != value for name, value in overrides.items()):
        return False
    try:
        rule.recognizes(model)
    except (Mismatch, *_MALFORMED_ERRORS):
        return False
    return True


def _build_record(
    rule: Rule, model: ModelFiles, record_fields: dict[str, Any], overrides: dict[str, Any]
) -> ModelConfig:
    """Return the record of a model that `rule` recognizes. Raises Mismatch if base or fields are not valid for it."""
    rule_base = registry.tag_fields(rule.config)["base"]
    detected_base = rule.base(model) if rule.base else rule_base
    base = overrides.get("base") or detected_base if rule.base_is_guess else detected_base or overrides.get("base")
    require(base, "its base cannot be detected; specify it")
    require(base == rule_base, f"its base is {rule_base}, the model's is {base}")
    detected = {name: detect(model) for name, detect in rule.detectors.items() if name not in overrides}
    try:
        return rule.config.model_validate(record_fields | detected | overrides)
    except ValidationError as error:
        raise Mismatch("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())) from error
