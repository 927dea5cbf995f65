"""Loaders of T5 text encoders as transformers objects."""

from pathlib import Path
from typing import Any

from invokeclone.engine.loading.files import load_folder
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.loading.loaders import loads
from invokeclone.graph.vocabulary.taxonomy import ModelFormat, ModelType, SubModelType

_FOLDERS = {SubModelType.Tokenizer2: "tokenizer_2", SubModelType.TextEncoder2: "text_encoder_2"}


@loads(type=ModelType.T5Encoder, format=ModelFormat.T5Encoder)
def load_t5(request: LoadRequest) -> Any:
    """Return the tokenizer or the encoder of a folder, in the number format of its files."""
    if request.submodel not in _FOLDERS:
        raise ValueError(f"{request.config.name}: T5 encoders have no part {request.submodel!r}")
    folder = request.path / _FOLDERS[request.submodel]
    return load_t5_tokenizer(folder) if request.submodel == SubModelType.Tokenizer2 else load_t5_encoder(folder)


def load_t5_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a folder."""
    from transformers import T5TokenizerFast

    return load_folder(folder, T5TokenizerFast, None)


def load_t5_encoder(folder: Path, variant: str | None = None) -> Any:
    """Return the encoder of a folder, in the number format of its files."""
    from transformers import T5EncoderModel

    return load_folder(folder, T5EncoderModel, None, variant)
