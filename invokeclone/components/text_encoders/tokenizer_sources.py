"""Which installed model provides the tokenizer of a Qwen3 or Mistral encoder. Does not import torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from invokeclone.components.separate_parts import first_installed, includes
from invokeclone.components.text_encoders.names import TOKENIZER
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import (
    BaseModelType,
    Flux2VariantType,
    ModelFormat,
    ModelType,
    SubModelType,
)
from invokeclone.models.errors import InvalidModel
from invokeclone.models.files.model_files import ModelFiles


@dataclass(frozen=True)
class _Kind:
    """A kind of encoder whose models all have the same tokenizer."""

    mains: Mapping[str, Any]
    """Attributes of main models that include it."""
    advice: str
    """The models to install for a tokenizer."""


_KINDS = {
    ModelType.Qwen3Encoder: _Kind(
        {"base": BaseModelType.ZImage},
        "a Qwen3 encoder in a folder or in GGUF format, or a Z-Image model in a folder",
    ),
    ModelType.MistralEncoder: _Kind(
        {"base": BaseModelType.Flux2, "variant": Flux2VariantType.Dev},
        "a Mistral encoder that has one, in a folder, in GGUF format or as ComfyUI's file, or FLUX.2 dev in a folder",
    ),
}


def tokenizer_source(
    context: InvocationContext, encoder: ModelIdentifierField, mains: Sequence[ModelIdentifierField]
) -> ModelIdentifierField:
    """Return the model whose tokenizer belongs to an encoder, which may be a main model's.

    It is the encoder's own. For a file without one it is that of a main model in `mains` that includes it, of another
    encoder of the kind, or of an installed main model. Raises ValueError if there is none.
    """
    record = context.models.get_config(encoder.key)
    if _has_tokenizer(context, record):
        return encoder
    if main := next((main for main in mains if includes(context, main, SubModelType.Tokenizer)), None):
        return main
    kind = _KINDS[record.type]
    separate = first_installed(
        context, lambda other: _has_tokenizer(context, other), type=record.type
    ) or first_installed(
        context,
        lambda main: all(getattr(main, name, None) == value for name, value in kind.mains.items()),
        type=ModelType.Main,
        format=ModelFormat.Diffusers,
    )
    if separate is None:
        message = f"{encoder.name} comes without a tokenizer: also install {kind.advice}"
        raise ValueError(message)
    context.logger.info(f"{encoder.name} comes without a tokenizer: that of {separate.name} is used")
    return separate


def _has_tokenizer(context: InvocationContext, record: Any) -> bool:
    """Return whether a model's files have a tokenizer; of single safetensors files, only some of Mistral's do."""
    if record.format == ModelFormat.SDNQQuantized:  # a folder or a file
        return bool(context.models.get_absolute_path(record).is_dir())
    if record.format != ModelFormat.Checkpoint:
        return True
    if record.type != ModelType.MistralEncoder:
        return False
    try:
        return TOKENIZER in ModelFiles(context.models.get_absolute_path(record)).tensors
    except (OSError, InvalidModel):
        return False
