"""Identification of a model file or folder: tries the rules of every family and builds the record. Writes nothing."""

from typing import Any

from pydantic import ValidationError

from invokeclone.graph.vocabulary.taxonomy import ModelType
from invokeclone.models.configs.model_config import ModelConfig, Unknown_Config
from invokeclone.models.errors import InvalidModel
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify import explicit_kind, registry
from invokeclone.models.identify.explicit_kind import MALFORMED_ERRORS
from invokeclone.models.identify.rules import Mismatch, Rule, UnsupportedKind, require

_PREFERRED_TYPES = (ModelType.Main, ModelType.LoRA)
"""Types that take precedence, in this order, when several rules match."""

_FALLBACK_TYPES = (ModelType.TextLLM, ModelType.SpandrelImageToImage, ModelType.TextualInversion)
"""The least specific types: any other takes precedence."""


def identify(
    model: ModelFiles, record_fields: dict[str, Any], overrides: dict[str, Any], *, allow_unknown: bool
) -> ModelConfig:
    """Return the record of `model`. Blocking: reads headers and JSON files.

    `record_fields` are the fields common to all records (key, hash, path, …). `overrides` are fields set by the user;
    they replace detected values and must be valid for the class. Files that match no rule get the record class that
    `overrides` state, if they have its form on disk, or else, with `allow_unknown`, an Unknown_Config. Raises
    InvalidModelRecord if there is no such class, and InvalidModel if the files are damaged or of another kind.
    """
    model.check()
    explicit_kind.check_kind(overrides)
    unsupported = _match_unsupported_kind(model)
    if unsupported is None:
        matches, reasons = find_matches(model, record_fields, overrides)
        if matches:
            return min(matches, key=_rank)
    else:
        reasons = [f"it is {unsupported.name}"]
    if allow_unknown and _allow_unknown(overrides):
        description = {"description": f"Not supported: {unsupported.name}."} if unsupported else {}
        return Unknown_Config.model_validate(record_fields | description | overrides)
    if unsupported is None:
        try:
            config = _build_explicit(model, record_fields, overrides)
        except Mismatch as mismatch:
            reasons.append(str(mismatch))
        else:
            if config is not None:
                return config
    claim = ", ".join(f"{name} {overrides[name]}" for name in sorted(_identifying_fields(overrides)))
    raise InvalidModel(
        f"{model.path.name} is not a model of a known kind"
        + (f" with {claim}" if claim else "")
        + "".join(f"; {reason}" for reason in reasons)
    )


def find_matches(
    model: ModelFiles, record_fields: dict[str, Any], overrides: dict[str, Any]
) -> tuple[list[ModelConfig], list[str]]:
    """Return the record of each rule that the model matches, and the reasons why rules that recognize it fail."""
    matches, reasons = [], []
    for rule in registry.rules():
        if not _matches_rule(rule, model, overrides):
            continue
        try:
            matches.append(_build_record(rule, model, record_fields, overrides))
        except Mismatch as mismatch:
            reasons.append(f"{rule.config.__name__}: {mismatch}")
        except MALFORMED_ERRORS as error:
            reasons.append(f"{rule.config.__name__}: its configuration files are malformed ({error})")
    return matches, reasons


def _build_explicit(model: ModelFiles, record_fields: dict[str, Any], overrides: dict[str, Any]) -> ModelConfig | None:
    """Return the record of the class that the user states. Raises Mismatch if the files are of another kind."""
    remaining = {name: value for name, value in overrides.items() if name not in explicit_kind.KIND_FIELDS}
    detected, _ = find_matches(model, record_fields, remaining)
    for config in sorted(detected, key=_rank):
        if config.type is not ModelType.TextLLM or config.type == overrides.get("type"):
            variant = getattr(config, "variant", None)
            raise Mismatch(
                f"it is a model of type {config.type}, format {config.format} and base {config.base}"
                + (f", variant {variant}" if variant else "")
            )
    return explicit_kind.build_record(model, record_fields, overrides)


def _match_unsupported_kind(model: ModelFiles) -> UnsupportedKind | None:
    for kind in registry.list_unsupported_kinds():
        try:
            if kind.recognizes(model):
                return kind
        except MALFORMED_ERRORS:
            continue
    return None


def _identifying_fields(overrides: dict[str, Any]) -> set[str]:
    """Return the fields set by the user that a record of an unknown model does not have or fixes."""
    fixed = {name for name in ("type", "format", "base") if name in overrides}
    return set(overrides) - set(Unknown_Config.model_fields) | fixed


def _allow_unknown(overrides: dict[str, Any]) -> bool:
    return all(overrides.get(name) == "unknown" for name in _identifying_fields(overrides))


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
    except (Mismatch, *MALFORMED_ERRORS):
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
