"""Records of the class that the user states, for models that no rule recognizes (such as those of unpublished sizes).

The files must have the form that the class has on disk. Everything that its rule can detect is detected.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from invokeclone.graph.vocabulary.taxonomy import ModelFormat, ModelType
from invokeclone.models.configs.kinds import (
    OMI,
    CheckpointFile,
    DiffusersFolder,
    EmbeddingFile,
    EmbeddingFolder,
    IPAdapterFolder,
    LoRAFolder,
    LyCORIS,
    PlainCheckpoint,
)
from invokeclone.models.configs.model_config import ModelConfig, Unknown_Config
from invokeclone.models.errors import InvalidModelRecord
from invokeclone.models.files.model_files import FOLDER_CONFIGS, WEIGHTS, ModelFiles
from invokeclone.models.identify import registry
from invokeclone.models.identify.rules import Mismatch, Rule, require
from invokeclone.models.identify.signatures import forms, loras

KIND_FIELDS = ("type", "format", "base", "variant")
"""Fields that determine a record class."""

MALFORMED_ERRORS = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""Exceptions raised by rules when a model's JSON files or tensors have values of unexpected types or shapes."""

_LORA_TYPES = (ModelType.LoRA, ModelType.ControlLoRa)
_TYPES_WITH_LORA_LAYERS = (*_LORA_TYPES, ModelType.IPAdapter, ModelType.ControlNet)
_FILE_FORMS: tuple[type[BaseModel], ...] = (CheckpointFile, PlainCheckpoint, LyCORIS, OMI, EmbeddingFile)
_PARTS = ("", "transformer", "unet", "text_encoder", "text_encoder_2")
"""Folders, relative to the model's, that may have a configuration file or quantized weights."""


def check_kind(overrides: Mapping[str, Any]) -> None:
    """Raise InvalidModelRecord if no record class has the type, format and base in `overrides`."""
    explicit_tag = {
        name: str(overrides[name]) for name in ("type", "format", "base") if overrides.get(name) is not None
    }
    tags: Iterable[Mapping[str, Any]] = [registry.tag_fields(config) for config in registry.config_classes()]
    for name, value in explicit_tag.items():
        possible = sorted({str(tag[name]) for tag in tags})
        if value not in possible:
            context = ", ".join(f"{other} {explicit_tag[other]}" for other in explicit_tag if other != name)
            raise InvalidModelRecord(
                f"no kind of model has {name} {value}"
                + (f" with {context}" if context else "")
                + f"; possible: {', '.join(possible)}"
            )
        tags = [tag for tag in tags if tag[name] == value]


def build_record(
    model: ModelFiles, record_fields: Mapping[str, Any], overrides: Mapping[str, Any]
) -> ModelConfig | None:
    """Return the record of the class that `overrides` state; None if they state no type.

    Raises Mismatch if the files do not have the form of the class, or if fields that cannot be detected are missing.
    """
    if overrides.get("type") in {None, ModelType.Unknown, ModelType.ExternalImageGenerator}:
        return None
    reasons = []
    candidates = []
    for config in filter(lambda config: _accepts(config, overrides), registry.config_classes()):
        try:
            _require_form(config, model)
            candidates.append(config)
        except Mismatch as mismatch:
            reasons.append(str(mismatch))
    require(candidates or reasons, "its kind does not have all of these fields")
    require(candidates, "; ".join(dict.fromkeys(reasons)))
    if len(candidates) > 1:
        raise Mismatch(f"specify also its {_ambiguous_fields(candidates)}")
    return _build(candidates[0], model, record_fields, overrides)


def _accepts(config: type[ModelConfig], overrides: Mapping[str, Any]) -> bool:
    tag, fields = registry.tag_fields(config), config.model_fields
    if config is Unknown_Config:
        return False
    return all(name in fields and tag.get(name, value) == value for name, value in overrides.items())


def _ambiguous_fields(configs: list[type[ModelConfig]]) -> str:
    tags = [registry.tag_fields(config) for config in configs]
    differing = [name for name in KIND_FIELDS if len({tag.get(name) for tag in tags}) > 1]
    return " and ".join(f"{name} ({', '.join(sorted(str(tag[name]) for tag in tags))})" for name in differing)


def _build(
    config: type[ModelConfig], model: ModelFiles, record_fields: Mapping[str, Any], overrides: Mapping[str, Any]
) -> ModelConfig:
    rule = next((rule for rule in registry.rules() if rule.config is config), None)
    detected = _detect(rule, model, overrides) if rule else {}
    try:
        return config.model_validate({**record_fields, **detected, **overrides})
    except ValidationError as error:
        missing = ", ".join(str(e["loc"][0]) for e in error.errors() if e["type"] == "missing")
        raise Mismatch(f"specify also its {missing}, which cannot be detected" if missing else str(error)) from error


def _detect(rule: Rule, model: ModelFiles, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the rule's detectors that work for the model."""
    values = {}
    for name, detect in rule.detectors.items():
        if name not in overrides:
            try:
                values[name] = detect(model)
            except (Mismatch, *MALFORMED_ERRORS):
                continue
    return values


def _require_form(config: type[ModelConfig], model: ModelFiles) -> None:
    """Raise Mismatch unless the files have the form on disk of a record class."""
    tag = registry.tag_fields(config)
    form, kind = tag["format"], tag["type"]
    if form == ModelFormat.BnbQuantizedLlmInt8b:
        _require_int8(model)
    elif issubclass(config, _FILE_FORMS) or form == ModelFormat.GGUFQuantized or _is_t5_file(form, model):
        _require_file(form, model)
    else:
        require(model.is_folder, f"the format {form} of a model of type {kind} is a folder, and this is a file")
        _FOLDER_CHECKS.get(_folder_form(config), _require_model_folder)(model)
        sdnq = form == ModelFormat.SDNQQuantized
        require(_is_quantized(model) == sdnq, f"its weights are {'not ' if sdnq else ''}quantized by SDNQ")
    weights = loras.weights_of(model)
    if kind in _LORA_TYPES:
        require(loras.is_lora(weights), "it has no tensors of a LoRA")
    elif kind not in _TYPES_WITH_LORA_LAYERS:
        require(not loras.is_lora(weights), "it has the tensors of a LoRA")


def _is_t5_file(form: ModelFormat, model: ModelFiles) -> bool:
    """Return whether a T5 encoder is stated that is a file; the format is that of folders, too."""
    return form == ModelFormat.T5Encoder and not model.is_folder


def _require_file(form: ModelFormat, model: ModelFiles) -> None:
    require(not model.is_folder, f"the format {form} is a single file, and this is a folder")
    require(model.path.suffix.lower() in WEIGHTS | {".gguf"}, f"{model.path.suffix} files cannot be read")
    stored = forms.storage(model)
    plain = (
        form
        if form in {ModelFormat.GGUFQuantized, ModelFormat.BnbQuantizednf4b, ModelFormat.SDNQQuantized}
        else ModelFormat.Checkpoint
    )
    require(stored == plain, f"its weights are stored as {stored}, which the format {form} is not")
    require(model.tensors, "it has no tensors")


def _require_int8(model: ModelFiles) -> None:
    weights = [file for file in model.files if file.suffix == ".safetensors"]
    files = [ModelFiles(file) for file in weights] if model.is_folder else [model]
    names = (name for file in files for name in file.tensors)
    require(any(name.endswith("SCB") for name in names), "its weights are not quantized to 8 bits by bitsandbytes")


def _require_model_folder(model: ModelFiles) -> None:
    require(any(file.suffix.lower() in WEIGHTS for file in model.files), "it has no weights")
    configs = (model.path / part / name for part in _PARTS for name in FOLDER_CONFIGS)
    require(any(path.is_file() for path in configs), f"it has no {' or '.join(FOLDER_CONFIGS)}")


def _require_lora_folder(model: ModelFiles) -> None:
    require(loras.weights_of(model) is not model, f"it has no {' or '.join(loras.WEIGHTS)}")


def _require_embedding_folder(model: ModelFiles) -> None:
    require(any(file.stem == "learned_embeds" for file in model.files), "it has no learned_embeds")


def _require_ip_adapter_folder(model: ModelFiles) -> None:
    require(any(file.name == "ip_adapter.bin" for file in model.files), "it has no ip_adapter.bin")


_FOLDER_CHECKS: dict[type[BaseModel], Callable[[ModelFiles], None]] = {
    LoRAFolder: _require_lora_folder,
    EmbeddingFolder: _require_embedding_folder,
    IPAdapterFolder: _require_ip_adapter_folder,
}


def _folder_form(config: type[ModelConfig]) -> type[BaseModel]:
    return next((form for form in _FOLDER_CHECKS if issubclass(config, form)), DiffusersFolder)


def _is_quantized(model: ModelFiles) -> bool:
    return any(forms.is_quantized_folder(model, part) for part in _PARTS)
