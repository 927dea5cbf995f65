"""Which installed model provides the tokenizer of a Qwen3 encoder. Does not import torch."""

from collections.abc import Sequence
from typing import Any

from invokeclone.components.separate_parts import first_installed, includes
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType

_WITHOUT = ModelFormat.Checkpoint
"""Single files in this format have no tokenizer."""


def tokenizer_source(
    context: InvocationContext, encoder: ModelIdentifierField, mains: Sequence[ModelIdentifierField]
) -> ModelIdentifierField:
    """Return the model whose tokenizer belongs to a Qwen3 encoder; all Qwen3 models have the same.

    It is the encoder's own. For a file without one it is that of a main model that includes it, of another Qwen3
    encoder, or of an installed Z-Image model. Raises ValueError if there is none.
    """

    def has_tokenizer(record: Any) -> bool:
        may_be_file = record.format == ModelFormat.SDNQQuantized
        return bool(context.models.get_absolute_path(record).is_dir()) if may_be_file else record.format != _WITHOUT

    if has_tokenizer(context.models.get_config(encoder.key)):
        return encoder
    if main := next((main for main in mains if includes(context, main, SubModelType.Tokenizer)), None):
        return main
    separate = first_installed(context, has_tokenizer, type=ModelType.Qwen3Encoder) or first_installed(
        context,
        lambda record: record.format == ModelFormat.Diffusers,
        type=ModelType.Main,
        base=BaseModelType.ZImage,
    )
    if separate is None:
        message = (
            f"{encoder.name} comes without a tokenizer: also install a Qwen3 encoder in a folder or in GGUF format, or a "
            "Z-Image model in a folder"
        )
        raise ValueError(message)
    context.logger.info(f"{encoder.name} comes without a tokenizer: that of {separate.name} is used")
    return separate
