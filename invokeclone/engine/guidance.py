"""Classifier-free guidance for any denoiser and conditioning."""

from collections.abc import Callable, Sequence
from typing import Protocol, Self, TypeVar

import torch


class DenoiserConditioning(Protocol):
    """The conditioning of a denoiser; it has one row per row of the latents."""

    def concat(self, other: Self) -> Self:
        """Return one conditioning with these rows followed by those of `other`."""


C = TypeVar("C", bound=DenoiserConditioning)
Denoiser = Callable[[torch.Tensor, torch.Tensor, C], torch.Tensor]
"""An adapter of a network: from (latents (batch, …), timestep, conditioning) to the network's prediction."""


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

    def predict(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        strength = scale_at(scale, step)
        if negative is None or strength == 1.0:
            return denoiser(latents, timestep, positive)
        if joint is None:
            unconditional, prediction = denoiser(latents, timestep, negative), denoiser(latents, timestep, positive)
        else:
            unconditional, prediction = denoiser(torch.cat([latents, latents]), timestep, joint).chunk(2)
        guided = unconditional + (prediction - unconditional) * strength
        return _rescale(guided, prediction, rescale) if rescale else guided

    return predict


def scale_at(scale: float | Sequence[float], step: int) -> float:
    """Return the guidance scale of a step."""
    return scale[min(step, len(scale) - 1)] if isinstance(scale, Sequence) else scale


def _rescale(guided: torch.Tensor, prediction: torch.Tensor, share: float) -> torch.Tensor:
    axes = tuple(range(1, guided.ndim))
    factor = prediction.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True)
    return share * guided * factor + (1.0 - share) * guided
