"""Loaders of T5, Qwen3 and Mistral text encoders as transformers objects."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from invokeclone.components.text_encoders import mistral, mistral_files, qwen3, qwen3_files, t5_files
from invokeclone.engine import devices
from invokeclone.engine.loading.files import load_folder
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.loading.loaders import loads
from invokeclone.graph.vocabulary.taxonomy import ModelFormat, ModelType, SubModelType

_DECODER_PARTS = (SubModelType.Tokenizer, SubModelType.TextEncoder)
_FOLDERS = {SubModelType.Tokenizer2: "tokenizer_2", SubModelType.TextEncoder2: "text_encoder_2"}


@loads(type=ModelType.T5Encoder, format=ModelFormat.T5Encoder)
@loads(type=ModelType.T5Encoder, format=ModelFormat.SDNQQuantized)
def load_t5(request: LoadRequest) -> Any:
    """Return the tokenizer or the encoder of a folder, in the number format of its files, or the encoder of a file."""
    _check_part(request, "T5", _FOLDERS)
    if request.path.is_file():
        return _load_t5_file(request)
    if request.submodel == SubModelType.Tokenizer2:
        return load_t5_tokenizer(request.path / _FOLDERS[SubModelType.Tokenizer2])
    return load_t5_encoder(request.path / _FOLDERS[SubModelType.TextEncoder2])


@loads(type=ModelType.T5Encoder, format=ModelFormat.GGUFQuantized)
def load_t5_gguf(request: LoadRequest) -> Any:
    """Return the tokenizer or the encoder of a GGUF file; its weights stay quantized."""
    _check_part(request, "T5", _FOLDERS)
    if request.submodel == SubModelType.Tokenizer2:
        return t5_files.load_gguf_tokenizer(request.path)
    return t5_files.load_t5_file(request.path, _dtype(request))


@loads(type=ModelType.T5Encoder, format=ModelFormat.BnbQuantizedLlmInt8b)
def load_t5_int8(request: LoadRequest) -> Any:
    """Return the tokenizer or the encoder of a folder, or the encoder of a file, with weights in 8 bits, which stay so."""
    _check_part(request, "T5", _FOLDERS)
    if request.path.is_file():
        return _load_t5_file(request)
    if request.submodel == SubModelType.Tokenizer2:
        return load_t5_tokenizer(request.path / _FOLDERS[SubModelType.Tokenizer2])
    return t5_files.load_int8_encoder(request.path / _FOLDERS[SubModelType.TextEncoder2], _dtype(request))


@loads(type=ModelType.Qwen3Encoder, format=ModelFormat.Qwen3Encoder)
def load_qwen3(request: LoadRequest) -> Any:
    """Return the tokenizer or the encoder of a folder, which may have a folder for each, or all files in one."""
    folder = _decoder_folder(request, "Qwen3")
    if request.submodel == SubModelType.Tokenizer:
        return qwen3.load_qwen3_tokenizer(folder)
    return qwen3.load_qwen3_encoder(folder, _dtype(request))


@loads(type=ModelType.Qwen3Encoder, format=ModelFormat.SDNQQuantized)
def load_qwen3_sdnq(request: LoadRequest) -> Any:
    """Return a part of a folder that SDNQ has quantized, or the encoder of such a file."""
    return load_qwen3(request) if request.path.is_dir() else load_qwen3_file(request)


@loads(type=ModelType.Qwen3Encoder, format=ModelFormat.Checkpoint)
@loads(type=ModelType.Qwen3Encoder, format=ModelFormat.GGUFQuantized)
def load_qwen3_file(request: LoadRequest) -> Any:
    """Return the encoder of a file, whose quantized weights stay quantized, or the tokenizer of a GGUF file."""
    _check_part(request, "Qwen3", _DECODER_PARTS)
    if request.submodel == SubModelType.TextEncoder:
        return qwen3_files.load_qwen3_file(request.path, _dtype(request))
    if request.config.format != ModelFormat.GGUFQuantized:
        raise ValueError(f"{request.config.name} comes without a tokenizer: use that of a Qwen3 encoder in a folder")
    return qwen3_files.load_gguf_tokenizer(request.path)


@loads(type=ModelType.MistralEncoder, format=ModelFormat.MistralEncoder)
def load_mistral(request: LoadRequest) -> Any:
    """Return the tokenizer or the encoder of a folder, which may have a folder for each, or all files in one."""
    folder = _decoder_folder(request, "Mistral")
    if request.submodel == SubModelType.Tokenizer:
        return mistral.load_mistral_tokenizer(folder)
    return mistral_files.load_mistral_folder(folder, _dtype(request))


@loads(type=ModelType.MistralEncoder, format=ModelFormat.Checkpoint)
@loads(type=ModelType.MistralEncoder, format=ModelFormat.GGUFQuantized)
def load_mistral_file(request: LoadRequest) -> Any:
    """Return the encoder of a file, whose quantized weights stay quantized, or its tokenizer."""
    _check_part(request, "Mistral", _DECODER_PARTS)
    if request.submodel == SubModelType.TextEncoder:
        return mistral_files.load_mistral_file(request.path, _dtype(request))
    return mistral_files.load_file_tokenizer(request.path)


def _decoder_folder(request: LoadRequest, kind: str) -> Path:
    """Return the folder with a part's files. Raises ValueError for a part that encoders of the kind do not have."""
    _check_part(request, kind, _DECODER_PARTS)
    folder = request.path / str(request.submodel)
    return folder if folder.is_dir() else request.path


def _load_t5_file(request: LoadRequest) -> Any:
    """Return the encoder of a file, which has no tokenizer."""
    if request.submodel == SubModelType.Tokenizer2:
        raise ValueError(f"{request.config.name} comes without a tokenizer: use that of a T5 encoder in a folder")
    return t5_files.load_t5_file(request.path, _dtype(request))


def _check_part(request: LoadRequest, kind: str, parts: Collection[SubModelType]) -> None:
    """Raise ValueError for a part that encoders of the kind do not have."""
    if request.submodel not in parts:
        raise ValueError(f"{request.config.name}: {kind} encoders have no part {request.submodel!r}")


def _dtype(request: LoadRequest) -> torch.dtype:
    """Return the number format in which encoders that overflow in float16 compute."""
    return devices.choose_bfloat16_dtype(request.device, request.settings.precision)


def load_t5_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a folder."""
    from transformers import T5TokenizerFast

    return load_folder(folder, T5TokenizerFast, None)


def load_t5_encoder(folder: Path, variant: str | None = None) -> Any:
    """Return the encoder of a folder, in the number format of its files."""
    from transformers import T5EncoderModel

    return load_folder(folder, T5EncoderModel, None, variant)
