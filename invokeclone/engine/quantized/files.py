"""Reading of weight files whose tensors may be quantized."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from invokeclone.engine.loading.files import read_json, read_tensors
from invokeclone.engine.quantized import bitsandbytes, float8, gguf, sdnq
from invokeclone.engine.quantized.packed import PackedTensor
from invokeclone.models.errors import InvalidModel
from invokeclone.models.files import safetensors_header

_SETTINGS = "quantization_config"
"""Name of SDNQ's settings: in the metadata of a safetensors file, in config.json, and as a file of their own."""


def read_weights(path: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, torch.Tensor | PackedTensor]:
    """Return the tensors of a GGUF, safetensors or torch file; quantized matrices are packed.

    Of files other than GGUF, only tensors whose names begin with one of `prefixes`. Raises InvalidModel for a damaged
    file, and ValueError with its name for quantizations that cannot be decoded.
    """
    if path.suffix.lower() == ".gguf":
        return dict(gguf.read_tensors(path))
    try:
        return unpack(read_tensors(path, prefixes), _settings_of_file(path))
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def unpack(
    tensors: dict[str, torch.Tensor], settings: Mapping[str, Any] | None = None
) -> dict[str, torch.Tensor | PackedTensor]:
    """Return the tensors of files; those of one quantized matrix as one packed tensor, in any form.

    `settings` are SDNQ's. Raises ValueError for quantizations that cannot be decoded.
    """
    return float8.unpack_names(sdnq.unpack_names(bitsandbytes.unpack_names(tensors), settings))


def settings_of_folder(folder: Path) -> dict[str, Any] | None:
    """Return the quantization settings of a network's folder; None if it has none. Raises InvalidModel for damaged ones."""
    for path in (folder / f"{_SETTINGS}.json", folder / "config.json"):
        content = read_json(path) if path.is_file() else {}
        settings = content if path.stem == _SETTINGS else content.get(_SETTINGS)
        if settings is not None and not isinstance(settings, dict):
            raise InvalidModel(f"{_SETTINGS} in {path.name} is not a JSON object")
        if settings:
            return settings
    return None


def _settings_of_file(path: Path) -> dict[str, Any] | None:
    """Return the settings in the metadata of a file, or else in a file of settings beside it."""
    if path.suffix.lower() == ".safetensors" and (text := safetensors_header.read(path)[1].get(_SETTINGS)):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{_SETTINGS} in its metadata is not valid JSON: download it again") from error
        if isinstance(content, dict):
            return content
    settings = path.with_name(f"{_SETTINGS}.json")
    return read_json(settings) if settings.is_file() else None
