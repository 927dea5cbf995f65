"""Pyramid attention broadcast: steps in the middle of a run reuse the results of attention (arXiv 2408.12588).

Attention to a prompt changes less from step to step than that within the image, so its results are reused twice as long.
Images differ from those without it. diffusers' hook for it keeps one result per layer, which would mix the two sides of
the guidance where each has a call of its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from invokeclone.engine import denoise, guidance

MIDDLE = (0.2, 0.9)
"""The part of a run's calls in which results are reused, as fractions."""
_CROSS_FACTOR = 2


@contextmanager
def attention_broadcast(network: nn.Module, interval: int | None) -> Iterator[None]:
    """Compute attention only in every `interval`-th step of the middle of a run inside the block; None: in every step.

    Use it for one run with `denoise.run`. The results of every layer stay in memory.
    """
    layers = _attention_layers(network) if interval else []
    before = [layer.__dict__.get("forward") for layer in layers]
    try:
        for layer in layers:
            factor = _CROSS_FACTOR if getattr(layer, "is_cross_attention", False) else 1
            layer.forward = _Broadcast(layer.forward, (interval or 1) * factor)
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            if forward is None:
                layer.__dict__.pop("forward", None)
            else:
                layer.forward = forward


def _attention_layers(network: nn.Module) -> list[Any]:
    from diffusers.models.attention import AttentionModuleMixin
    from diffusers.models.attention_processor import Attention

    return [module for module in network.modules() if isinstance(module, (Attention, AttentionModuleMixin))]


class _Call(NamedTuple):
    side: guidance.Side
    number: int
    """Number of the call among those of the same step and side, from 0."""


@dataclass(frozen=True, slots=True)
class _Result:
    index: int
    shape: torch.Size
    output: Any


class _Broadcast:
    """Calls a layer, or returns its result of an earlier step."""

    def __init__(self, forward: Callable[..., Any], interval: int) -> None:
        self._forward = forward
        self._interval = interval
        self._results: dict[_Call, _Result] = {}
        self._last: tuple[int, dict[guidance.Side, int]] = (-1, {})

    def __call__(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        position = denoise.position()
        if position is None:
            return self._forward(hidden_states, *args, **kwargs)
        call = self._next_call(position.index)
        result = self._results.get(call)
        first, end = (share * position.total for share in MIDDLE)
        if (
            result is not None
            and first <= position.index < end
            and position.index - result.index < self._interval
            and result.shape == hidden_states.shape
        ):
            return result.output
        output = self._forward(hidden_states, *args, **kwargs)
        self._results[call] = _Result(position.index, hidden_states.shape, output)
        return output

    def _next_call(self, index: int) -> _Call:
        if self._last[0] != index:
            self._last = (index, {})
        counts, side = self._last[1], guidance.side()
        counts[side] = counts.get(side, -1) + 1
        return _Call(side, counts[side])
