"""Temporary changes to a model: wrap-around padding, another number format, that of each input.

Cached models are shared, so each change is a context manager that restores the model.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.nn import functional


@contextmanager
def seamless(model: nn.Module, axes: Sequence[str]) -> Iterator[None]:
    """Make convolutions wrap around along `axes` ("x", "y"), so that opposite edges of the image match."""
    wrapped = [module for module in model.modules() if isinstance(module, nn.Conv2d)] if axes else []
    wrapped = [module for module in wrapped if any(module._reversed_padding_repeated_twice)]  # noqa: SLF001
    before = [module.__dict__.get("_conv_forward") for module in wrapped]
    try:
        for module in wrapped:
            module._conv_forward = _wrapping(module, axes)  # noqa: SLF001
        yield
    finally:
        for module, original in zip(wrapped, before, strict=True):
            if original is None:
                module.__dict__.pop("_conv_forward", None)
            else:
                module._conv_forward = original  # noqa: SLF001


def _wrapping(
    module: nn.Conv2d, axes: Sequence[str]
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]:
    left, right, top, bottom = module._reversed_padding_repeated_twice  # noqa: SLF001
    modes = ["circular" if axis in axes else "constant" for axis in ("x", "y")]

    def forward(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        padded = functional.pad(inputs, (left, right, 0, 0), mode=modes[0])
        padded = functional.pad(padded, (0, 0, top, bottom), mode=modes[1])
        return functional.conv2d(padded, weight, bias, module.stride, 0, module.dilation, module.groups)

    return forward


@contextmanager
def input_formats(model: nn.Module) -> Iterator[None]:
    """Make linear layers and RMS norms compute in the number format of their input, whatever their weights', inside the block.

    So a network with weights in half precision computes in float32 from the first float32 input on.
    """
    changed = [module for module in model.modules() if type(module) in _FORWARDS]
    try:
        for module in changed:
            module.forward = partial(_FORWARDS[type(module)], module)
        yield
    finally:
        for module in changed:
            module.__dict__.pop("forward", None)


def _linear(module: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    bias = None if module.bias is None else module.bias.to(inputs.dtype)
    return functional.linear(inputs, module.weight.to(inputs.dtype), bias)


def _rms_norm(module: nn.RMSNorm, inputs: torch.Tensor) -> torch.Tensor:
    weight = None if module.weight is None else module.weight.to(inputs.dtype)
    return functional.rms_norm(inputs, module.normalized_shape, weight, module.eps)


_FORWARDS: dict[type[nn.Module], Callable[..., torch.Tensor]] = {nn.Linear: _linear, nn.RMSNorm: _rms_norm}


@contextmanager
def number_format(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Make a model compute in `dtype` inside the block; does nothing if it already does."""
    before = next(model.parameters()).dtype
    if before == dtype:
        yield
        return
    with torch.inference_mode(mode=False):
        model.to(dtype)
    try:
        yield
    finally:
        with torch.inference_mode(mode=False):
            model.to(before)
