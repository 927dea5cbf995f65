"""Weights stored in 8 bits (float8_e4m3fn) and brought back to the number format of the computation at each call.

As diffusers' layerwise casting does it, weights and biases of linear layers, convolutions and embeddings are stored so; norms,
position and patch embeddings and the projections around a whole network are not.
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
"""Parts of a record that are stored in 8 bits: what denoises. Text encoders and autoencoders are not."""
_IN_FULL = re.compile(r"pos_embed|patch_embed|norm|^proj_in$|^proj_out$")
"""Of the modules' paths."""


def is_stored(config: Any, submodel: SubModelType | None, device: torch.device) -> bool:
    """Tell whether a record's settings ask for 8 bits, and the device computes from them: CUDA does, XPU where torch can."""
    settings = getattr(config, "default_settings", None)
    return submodel in _NETWORKS and bool(getattr(settings, "fp8_storage", None)) and is_supported(device)


def is_supported(device: torch.device) -> bool:
    """Tell whether weights in 8 bits can be brought back on a device."""
    if device.type != "xpu":
        return bool(device.type == "cuda")
    try:
        torch.ones(1, device=device).to(STORAGE).to(torch.float16)
    except (RuntimeError, TypeError, AssertionError):  # what a torch without it raises
        return False
    return True


def store(model: Any, dtype: torch.dtype) -> Any:
    """Return the network with its large weights in 8 bits; it computes in `dtype`, which is what its `dtype` stays."""
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
    """The `dtype` of a network whose weights are stored otherwise."""

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
    """Return a layer's weight and bias to compute with."""
    bias = None if layer.bias is None else layer.bias.to(layer.compute_dtype)
    return layer.weight.to(layer.compute_dtype), bias
