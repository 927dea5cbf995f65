"""Storage of weights in 8 bits (float8_e4m3fn), cast to the compute dtype at each call.

As in diffusers' layerwise casting, this applies to weights and biases of linear layers, convolutions and embeddings,
but not to norms, position and patch embeddings or a network's input and output projections.
"""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from invokeclone.graph.vocabulary.taxonomy import SubModelType

STORAGE = torch.float8_e4m3fn
_NETWORKS = (None, SubModelType.UNet, SubModelType.Transformer, SubModelType.Transformer2)
"""Submodels that are stored in 8 bits: denoisers. Text encoders and autoencoders are not."""
_IN_FULL = re.compile(r"pos_embed|patch_embed|norm|^proj_in$|^proj_out$")
"""Matches the paths of modules that keep full precision."""


def is_stored(config: Any, submodel: SubModelType | None, device: torch.device) -> bool:
    """Return whether the record's settings ask for 8-bit storage and the device supports it."""
    settings = getattr(config, "default_settings", None)
    return submodel in _NETWORKS and bool(getattr(settings, "fp8_storage", None)) and is_supported(device)


def is_supported(device: torch.device) -> bool:
    """Return whether the device can cast 8-bit weights: CUDA always, XPU if torch supports it."""
    if device.type != "xpu":
        return bool(device.type == "cuda")
    try:
        torch.ones(1, device=device).to(STORAGE).to(torch.float16)
    except (RuntimeError, TypeError, AssertionError):  # raised by a torch build without support
        return False
    return True


def store(model: Any, dtype: torch.dtype) -> Any:
    """Return the network with its large weights in 8 bits.

    It computes in `dtype`, which its `dtype` property still reports.
    """
    with torch.no_grad():
        for layer in _layers(model):
            for parameter in layer.parameters(recurse=False):
                parameter.requires_grad_(requires_grad=False)
                parameter.data = parameter.data.to(STORAGE)
            layer.compute_dtype = dtype
            layer.__class__ = _STORED[type(layer)]
    if isinstance(getattr(type(model), "dtype", None), property):
        model.compute_dtype = dtype
        model.__class__ = type(type(model).__name__, (_ComputeDtype, type(model)), {})
    return model


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    return (module for path, module in model.named_modules() if type(module) in _STORED and not _IN_FULL.search(path))


class _ComputeDtype:
    """Overrides `dtype` of a network whose weights are stored in another format."""

    compute_dtype: torch.dtype

    @property
    def dtype(self) -> torch.dtype:
        """The number format of its inputs and outputs."""
        return self.compute_dtype


class _Linear(nn.Linear):  # type: ignore[misc]
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return functional.linear(inputs, *_compute_weights(self))


class _Conv1d(nn.Conv1d):  # type: ignore[misc]
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(inputs, *_compute_weights(self))


class _Conv2d(nn.Conv2d):  # type: ignore[misc]
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(inputs, *_compute_weights(self))


class _Conv3d(nn.Conv3d):  # type: ignore[misc]
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(inputs, *_compute_weights(self))


class _Embedding(nn.Embedding):  # type: ignore[misc]
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        rows = functional.embedding(tokens, self.weight.view(torch.uint8), self.padding_idx)
        return rows.view(STORAGE).to(self.compute_dtype)


_STORED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: _Linear,
    nn.Conv1d: _Conv1d,
    nn.Conv2d: _Conv2d,
    nn.Conv3d: _Conv3d,
    nn.Embedding: _Embedding,
}


def _compute_weights(layer: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return a layer's weight and bias in the compute dtype."""
    bias = None if layer.bias is None else layer.bias.to(layer.compute_dtype)
    return layer.weight.to(layer.compute_dtype), bias
