"""Parts that a main model may lack and another installed model has, such as T5 encoders."""

from collections.abc import Callable, Iterator, Mapping
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
_T5_FORMATS_OF_FILES = (ModelFormat.T5Encoder, ModelFormat.BnbQuantizedLlmInt8b)
"""Formats of T5 encoders in a folder, or in a file without a tokenizer."""
_CLIP_IN_MAIN_MODELS = {
    ClipVariantType.L: {BaseModelType.Flux: _FIRST, BaseModelType.StableDiffusion3: _FIRST},
    ClipVariantType.G: {BaseModelType.StableDiffusion3: _SECOND},
}


def t5_of(context: InvocationContext, selected: ModelIdentifierField) -> TextEncoder:
    """Return the T5 of a selected model: a T5 encoder, or a main model whose folder includes one.

    InvokeAI's web UI offers both. Raises UnknownModel and WrongModelType.
    """
    tokenizer, encoder = _encoder_of(context, selected, ModelType.T5Encoder, _SECOND, _T5_IN_MAIN_MODELS)
    record = context.models.get_config(selected.key)
    if record.format in _T5_FORMATS_OF_FILES and context.models.get_absolute_path(record).is_file():
        tokenizer = t5_tokenizer_for(context, selected)
    return tokenizer, encoder


def t5_tokenizer_for(context: InvocationContext, model: ModelIdentifierField) -> ModelIdentifierField:
    """Return the tokenizer of another model for a file with T5's weights, which has no vocabulary; all T5s have the same.

    It is that of a T5 encoder in a folder, of a main model in a folder, or of a T5 encoder in GGUF format. Raises
    ValueError if none is installed.
    """
    source = next(_t5_tokenizers(context), None)
    if source is None:
        raise ValueError(
            f"{model.name} has T5 without its tokenizer: also install a T5 encoder in a folder or in GGUF format, for "
            "example InvokeAI/t5-v1_1-xxl::bfloat16, or a FLUX.1 or Stable Diffusion 3 model in a folder"
        )
    context.logger.info(f"{model.name} has T5 without its tokenizer: that of {source.name} is used")
    return source


def _t5_tokenizers(context: InvocationContext) -> Iterator[ModelIdentifierField]:
    """Yield references to T5's tokenizers in installed models: those in folders, then those in GGUF files."""

    def has(part: SubModelType) -> Callable[[Any], bool]:
        return lambda record: bool((context.models.get_absolute_path(record) / str(part)).is_dir())

    part = _SECOND[0]
    if separate := first_installed(context, has(part), type=ModelType.T5Encoder):
        yield separate.part(part)
    for base, (main_part, _) in _T5_IN_MAIN_MODELS.items():
        if main := first_installed(context, has(main_part), type=ModelType.Main, base=base):
            yield main.part(main_part)
    gguf = {"type": ModelType.T5Encoder, "format": ModelFormat.GGUFQuantized}
    if separate := first_installed(context, lambda _: True, **gguf):
        yield separate.part(part)


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
    candidates = sorted(context.models.search_by_attrs(**attributes), key=lambda record: (record.name, record.key))
    record = next(filter(is_suitable, candidates), None)  # tests no more than necessary: it may have to be fetched
    if record is None:
        return None
    return ModelIdentifierField(key=record.key, hash=record.hash, name=record.name, base=record.base, type=record.type)
