"""Loaders of T5 and Qwen3 text encoders as transformers objects."""

from pathlib import Path
from typing import Any

import torch

from invokeclone.components.text_encoders import qwen3, qwen3_files, t5_files
from invokeclone.engine import devices
from invokeclone.engine.loading.files import load_folder
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.loading.loaders import loads
from invokeclone.graph.vocabulary.taxonomy import ModelFormat, ModelType, SubModelType

_QWEN3_PARTS = (SubModelType.Tokenizer, SubModelType.TextEncoder)
_FOLDERS = {SubModelType.Tokenizer2: "tokenizer_2", SubModelType.TextEncoder2: "text_encoder_2"}


@loads(type=ModelType.T5Encoder, format=ModelFormat.T5Encoder)
@loads(type=ModelType.T5Encoder, format=ModelFormat.SDNQQuantized)
def load_t5(request: LoadRequest) -> Any:
    """Return the tokenizer or the encoder of a folder, in the number format of its files, or the encoder of a file."""
    _check_part(request)
    if request.path.is_file():
        return _load_t5_file(request)
    if request.submodel == SubModelType.Tokenizer2:
        return load_t5_tokenizer(request.path / _FOLDERS[SubModelType.Tokenizer2])
    return load_t5_encoder(request.path / _FOLDERS[SubModelType.TextEncoder2])


@loads(type=ModelType.T5Encoder, format=ModelFormat.GGUFQuantized)
def load_t5_gguf(request: LoadRequest) -> Any:
    """Return the tokenizer or the encoder of a GGUF file; its weights stay quantized."""
    _check_part(request)
    if request.submodel == SubModelType.Tokenizer2:
        return t5_files.load_gguf_tokenizer(request.path)
    return t5_files.load_t5_file(request.path, _dtype(request))


@loads(type=ModelType.T5Encoder, format=ModelFormat.BnbQuantizedLlmInt8b)
def load_t5_int8(request: LoadRequest) -> Any:
    """Return the tokenizer or the encoder of a folder, or the encoder of a file, with weights in 8 bits, which stay so."""
    _check_part(request)
    if request.path.is_file():
        return _load_t5_file(request)
    if request.submodel == SubModelType.Tokenizer2:
        return load_t5_tokenizer(request.path / _FOLDERS[SubModelType.Tokenizer2])
    return t5_files.load_int8_encoder(request.path / _FOLDERS[SubModelType.TextEncoder2], _dtype(request))


@loads(type=ModelType.Qwen3Encoder, format=ModelFormat.Qwen3Encoder)
def load_qwen3(request: LoadRequest) -> Any:
    """Return the tokenizer or the encoder of a folder, which may have a folder for each, or all files in one."""
    _check_qwen3_part(request)
    folder = request.path / str(request.submodel)
    folder = folder if folder.is_dir() else request.path
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
    _check_qwen3_part(request)
    if request.submodel == SubModelType.TextEncoder:
        return qwen3_files.load_qwen3_file(request.path, _dtype(request))
    if request.config.format != ModelFormat.GGUFQuantized:
        raise ValueError(f"{request.config.name} comes without a tokenizer: use that of a Qwen3 encoder in a folder")
    return qwen3_files.load_gguf_tokenizer(request.path)


def _load_t5_file(request: LoadRequest) -> Any:
    """Return the encoder of a file, which has no tokenizer."""
    if request.submodel == SubModelType.Tokenizer2:
        raise ValueError(f"{request.config.name} comes without a tokenizer: use that of a T5 encoder in a folder")
    return t5_files.load_t5_file(request.path, _dtype(request))


def _check_qwen3_part(request: LoadRequest) -> None:
    """Raise ValueError for a part that Qwen3 encoders do not have."""
    if request.submodel not in _QWEN3_PARTS:
        raise ValueError(f"{request.config.name}: Qwen3 encoders have no part {request.submodel!r}")


def _check_part(request: LoadRequest) -> None:
    """Raise ValueError for a part that T5 encoders do not have."""
    if request.submodel not in _FOLDERS:
        raise ValueError(f"{request.config.name}: T5 encoders have no part {request.submodel!r}")


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
