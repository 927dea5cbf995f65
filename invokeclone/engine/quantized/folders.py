"""Networks of diffusers and transformers in folders with quantized weights, without the libraries that quantized them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from invokeclone.engine.loading.files import read_tensors
from invokeclone.engine.loading.folders import build_empty
from invokeclone.engine.quantized.files import settings_of_folder, unpack
from invokeclone.engine.quantized.packed import PackedTensor, fill
from invokeclone.models.files import safetensors_header

_QUANTIZED = frozenset({"F8_E4M3", "F8_E5M2"})
_STATES = (".SCB", ".scale", ".weight.absmax", ".weight_scale", ".scale_weight", ".weight_scale_inv")
"""Endings of tensors that quantized weights have beside them."""
_METHODS = ("sdnq", "bitsandbytes", "fp8")
"""Programs and forms whose weights can be decoded, by their names in settings."""
_MISTRAL_OWN = "consolidated"
"""Beginning of the names of files with the same weights by Mistral's own names."""
_INNER_PREFIXES = ("text_model",)
"""Prefixes in files of networks that transformers has flattened since."""


def is_quantized(folder: Path) -> bool:
    """Return whether the weights of a network's folder are quantized: by its settings, or by its tensors.

    Raises InvalidModel for a damaged file.
    """
    if settings_of_folder(folder):
        return True
    for file in _files(folder):
        tensors, _ = safetensors_header.read(file)
        if any(tensor.dtype in _QUANTIZED for tensor in tensors.values()):
            return True
        states = (name.removesuffix(ending) for name in tensors for ending in _STATES if name.endswith(ending))
        if any(f"{path}.weight" in tensors for path in states):
            return True
    return False


def load(folder: Path, cls: Any, dtype: torch.dtype | None) -> Any:
    """Return a network of `cls` from its folder, computing in `dtype`; quantized weights of linear layers stay quantized.

    A dtype of None is that of the first unquantized tensor of floating point. Raises ValueError for missing tensors and
    for quantizations that cannot be decoded.
    """
    weights = read_folder(folder)
    dtype = dtype or _dtype_of(weights)
    model = build_empty(folder, cls)
    try:
        fill(model, _rename(model, weights), dtype)
    except RuntimeError as error:
        raise ValueError(f"the weights in {folder} do not match config.json: {error}") from error
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    if missing := next(_missing(model), None):
        raise ValueError(f"the weights in {folder} are incomplete ({missing} is missing): install the model again")
    return model.eval()


def read_folder(
    folder: Path, is_used: Callable[[str], bool] = lambda _: True
) -> dict[str, torch.Tensor | PackedTensor]:
    """Return the tensors in a network's folder whose names `is_used` accepts; quantized matrices are packed.

    A matrix and its scales may be in different files. Raises InvalidModel for a damaged file, and ValueError for
    quantizations that cannot be decoded.
    """
    settings = settings_of_folder(folder) or {}
    if (method := str(settings.get("quant_method", _METHODS[0]))) not in _METHODS:
        raise ValueError(
            f"{folder.parent.name}/{folder.name} is quantized by {method}, which cannot be decoded: use a model that is not, "
            f"or one quantized by {', '.join(_METHODS)}"
        )
    tensors: dict[str, torch.Tensor] = {}
    for file in _files(folder):
        tensors |= read_tensors(file, [name for name in safetensors_header.read(file)[0] if is_used(name)])
    try:
        return unpack(tensors, settings)
    except ValueError as error:
        raise ValueError(f"{folder.parent.name}/{folder.name}: {error}") from error


def _files(folder: Path) -> list[Path]:
    """Return the weight files; of several variants, those without a name of a variant."""
    files = sorted(file for file in folder.glob("*.safetensors") if file.is_file())
    files = [file for file in files if not file.name.startswith(_MISTRAL_OWN)]
    return [file for file in files if file.name.count(".") == 1] or files


def _dtype_of(weights: dict[str, torch.Tensor | PackedTensor]) -> torch.dtype:
    plain = (value.dtype for value in weights.values() if isinstance(value, torch.Tensor))
    return next((dtype for dtype in plain if dtype.is_floating_point and dtype.itemsize > 1), torch.bfloat16)


def _rename(
    model: nn.Module, weights: dict[str, torch.Tensor | PackedTensor]
) -> dict[str, torch.Tensor | PackedTensor]:
    """Return the weights with the names of the network: a file may have those of a model around it."""
    expected = model.state_dict().keys()
    for prefix in (getattr(model, "base_model_prefix", ""), *_INNER_PREFIXES):
        bare = {name.removeprefix(f"{prefix}."): value for name, value in weights.items()}
        if prefix and not expected & weights.keys() and expected & bare.keys():
            weights.clear()
            return bare
    return weights


def _missing(model: nn.Module) -> Iterator[str]:
    """Yield the names of parameters and buffers without values."""
    yield from (name for name, value in model.state_dict().items() if value.is_meta)
    yield from (name for name, value in model.named_buffers() if value.is_meta)
