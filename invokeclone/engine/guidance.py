"""Classifier-free guidance for any denoiser and conditioning."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Literal, Protocol, Self, TypeVar

import torch


class DenoiserConditioning(Protocol):
    """The conditioning of a denoiser; it has one row per row of the latents."""

    def concat(self, other: Self) -> Self:
        """Return one conditioning with these rows followed by those of `other`."""


C = TypeVar("C", bound=DenoiserConditioning)
Denoiser = Callable[[torch.Tensor, torch.Tensor, C], torch.Tensor]
"""An adapter of a network: from (latents (batch, …), timestep, conditioning) to the network's prediction."""

Side = Literal["positive", "negative", "both"]
_side: ContextVar[Side] = ContextVar("guidance_side", default="positive")


def side() -> Side:
    """Return the side of the guidance that this thread's call of the denoiser is for."""
    return _side.get()


def classifier_free_guidance(
    denoiser: Denoiser[C],
    positive: C,
    negative: C | None,
    scale: float | Sequence[float],
    *,
    rescale: float = 0.0,
    sequential: bool = False,
) -> Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]:
    """Return a function of latents, timestep and step that predicts with guidance: u + scale · (c - u).

    The formula is from arXiv 2207.12598. `scale` is one number or one per step; the last value of a short list
    applies to the remaining steps. At scale 1, or without a negative conditioning, the denoiser is called for the
    positive one only. `rescale` moves the standard deviation of each row towards that of the positive prediction
    (arXiv 2305.08891, 3.4). `sequential` calls the denoiser twice instead of once with twice the batch, which needs
    less memory.
    """
    joint = None if negative is None or sequential else negative.concat(positive)

    def call(name: Side, latents: torch.Tensor, timestep: torch.Tensor, conditioning: C) -> torch.Tensor:
        token = _side.set(name)
        try:
            return denoiser(latents, timestep, conditioning)
        finally:
            _side.reset(token)

    def predict(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        strength = scale_at(scale, step)
        if negative is None or strength == 1.0:
            return call("positive", latents, timestep, positive)
        if joint is None:
            unconditional = call("negative", latents, timestep, negative)
            prediction = call("positive", latents, timestep, positive)
        else:
            unconditional, prediction = call("both", torch.cat([latents, latents]), timestep, joint).chunk(2)
        guided = unconditional + (prediction - unconditional) * strength
        return _rescale(guided, prediction, rescale) if rescale else guided

    return predict


def scale_at(scale: float | Sequence[float], step: int) -> float:
    """Return the guidance scale of a step."""
    return scale[min(step, len(scale) - 1)] if isinstance(scale, Sequence) else scale


def truncate_guidance(scale: float | Sequence[float], steps: int, end: float) -> float | list[float]:
    """Return the guidance scales of a run of `steps` that uses the negative prompt only up to the fraction `end`.

    Later steps have scale 1, so each calls the denoiser once. At `end` 1 the scale is returned as it is.
    """
    if end >= 1.0:
        return list(scale) if isinstance(scale, Sequence) else scale
    guided = round(steps * end)
    return [scale_at(scale, step) if step < guided else 1.0 for step in range(steps)]


def _rescale(guided: torch.Tensor, prediction: torch.Tensor, share: float) -> torch.Tensor:
    axes = tuple(range(1, guided.ndim))
    factor = prediction.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True)
    return share * guided * factor + (1.0 - share) * guided
