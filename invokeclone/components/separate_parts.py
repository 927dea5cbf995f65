"""Parts that a main model may lack and another installed model has, such as T5 encoders."""

from collections.abc import Callable, Mapping
from typing import Any

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.metadata import check_exists, check_type
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import (
    BaseModelType,
    ClipVariantType,
    ModelFormat,
    ModelType,
    SubModelType,
)

TextEncoder = tuple[ModelIdentifierField, ModelIdentifierField]
"""References to a tokenizer and to the text encoder that reads its tokens."""

_FIRST = (SubModelType.Tokenizer, SubModelType.TextEncoder)
_SECOND = (SubModelType.Tokenizer2, SubModelType.TextEncoder2)
_THIRD = (SubModelType.Tokenizer3, SubModelType.TextEncoder3)
_T5_IN_MAIN_MODELS = {BaseModelType.Flux: _SECOND, BaseModelType.StableDiffusion3: _THIRD}
_CLIP_IN_MAIN_MODELS = {
    ClipVariantType.L: {BaseModelType.Flux: _FIRST, BaseModelType.StableDiffusion3: _FIRST},
    ClipVariantType.G: {BaseModelType.StableDiffusion3: _SECOND},
}


def t5_of(context: InvocationContext, selected: ModelIdentifierField) -> TextEncoder:
    """Return the T5 of a selected model: a T5 encoder, or a main model whose folder includes one.

    InvokeAI's web UI offers both. Raises UnknownModel and WrongModelType.
    """
    return _encoder_of(context, selected, ModelType.T5Encoder, _SECOND, _T5_IN_MAIN_MODELS)


def clip_of(context: InvocationContext, selected: ModelIdentifierField, variant: ClipVariantType) -> TextEncoder:
    """Return the CLIP of a selected model: a CLIP text encoder, or a main model whose folder includes one.

    `variant` is the one of a main model's encoders that is used. Raises UnknownModel and WrongModelType.
    """
    return _encoder_of(context, selected, ModelType.CLIPEmbed, _FIRST, _CLIP_IN_MAIN_MODELS[variant])


def _encoder_of(
    context: InvocationContext,
    selected: ModelIdentifierField,
    kind: ModelType,
    separate: tuple[SubModelType, SubModelType],
    in_main_models: Mapping[BaseModelType, tuple[SubModelType, SubModelType]],
) -> TextEncoder:
    check_exists(context, selected)
    record = context.models.get_config(selected.key)
    parts = in_main_models.get(record.base) if record.type == ModelType.Main else None
    if parts is None or not includes(context, selected, parts[1]):
        check_type(context, selected, kind)
        parts = separate
    return selected.part(parts[0]), selected.part(parts[1])


class MissingPart(ValueError):
    """A model needs a part that neither it nor another installed model provides."""

    def __init__(self, model: str, kind: str, source: str, field: str) -> None:
        """Take the names of model and part, where one can be installed from, and the node's input that selects it."""
        super().__init__(
            f"{model} comes without a {kind}: install one, for example {source} (the starter models have it), and "
            f"select it as {field}"
        )


def includes(context: InvocationContext, main: ModelIdentifierField, part: SubModelType) -> bool:
    """Return whether a main model is a folder that includes a part."""
    record = context.models.get_config(main.key)
    if record.format not in (ModelFormat.Diffusers, ModelFormat.SDNQQuantized):
        return False
    return bool((context.models.get_absolute_path(record) / str(part)).is_dir())


def first_installed(
    context: InvocationContext, is_suitable: Callable[[Any], bool], **attributes: Any
) -> ModelIdentifierField | None:
    """Return the first model by name with these attributes of its record, None if there is none."""
    candidates = [record for record in context.models.search_by_attrs(**attributes) if is_suitable(record)]
    if not candidates:
        return None
    record = min(candidates, key=lambda candidate: (candidate.name, candidate.key))
    return ModelIdentifierField(key=record.key, hash=record.hash, name=record.name, base=record.base, type=record.type)
