"""Coarse prediction: a network that was trained on small images lays out larger ones at a size that it knows.

At a larger size such a network repeats objects. While noise hides the details, the latents are therefore averaged down to
a trained size, which also lowers their noise; the clean latents predicted there are scaled up again. The last steps,
which add details, run at full size. Only UNets whose `config.json` has `_trained_side` are used in this way: the largest
side, in latents, of the images they were trained on. Other networks are called as they are.
"""

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Maps scaled latents and a timestep to the network's prediction."""

TRAINED_SIDE = "_trained_side"
"""The setting in the UNet's `config.json`; diffusers keeps settings with an underscore and ignores them."""
_FINE_BELOW = 0.3
"""Noise level (noise over signal) below which the network is called at full size."""
_PURE_NOISE_SHARE = 0.99
"""Share of the training timesteps from which the latents are taken for noise without a signal."""


@dataclass(frozen=True)
class CoarsePrediction:
    """Calls a network at a size that it was trained for. Latents are scaled: signal² + noise² = 1."""

    side: int
    """The largest trained side, in latents."""
    levels: list[float]
    """Noise over signal by training timestep, ascending."""
    prediction_type: str
    """`epsilon`, `v_prediction` or `sample`."""

    def __call__(self, predict: Predict, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Return the prediction for latents (batch, channels, height, width), all at one timestep."""
        size = (latents.shape[-2], latents.shape[-1])
        factor = math.ceil(max(size) / self.side)
        time = float(timestep.reshape(-1)[0])
        level = self._level(time)
        if factor <= 1 or level < _FINE_BELOW:
            return predict(latents, timestep)
        # 1. the average of factor² values: the signal stays, the noise becomes smaller by the factor
        coarse_level = level / factor
        coarse_time = time if time >= _PURE_NOISE_SHARE * len(self.levels) else self._time(coarse_level)
        if coarse_time == time:
            coarse_level = level
        low = functional.adaptive_avg_pool2d(latents, tuple(math.ceil(side / factor) for side in size))
        low = low * (_noise(coarse_level) / (_noise(level) / factor))
        # 2. the clean latents there, and at full size
        prediction = predict(low, timestep.new_tensor(coarse_time, dtype=torch.float32).expand(timestep.shape))
        clean = functional.interpolate(self._clean(low, prediction, coarse_level), size, mode="bilinear")
        # 3. the prediction that stands for these clean latents
        return self._prediction(latents, clean, level)

    def _level(self, time: float) -> float:
        """Return the noise level of a timestep, which may lie between two of the training."""
        below = min(max(int(time), 0), len(self.levels) - 1)
        above = min(below + 1, len(self.levels) - 1)
        share = min(max(time - below, 0.0), 1.0)
        return math.exp((1 - share) * math.log(self.levels[below]) + share * math.log(self.levels[above]))

    def _time(self, level: float) -> float:
        """Return the timestep of a noise level."""
        above = min(max(bisect.bisect_left(self.levels, level), 1), len(self.levels) - 1)
        low, high = math.log(self.levels[above - 1]), math.log(self.levels[above])
        return above - 1 + min(max((math.log(level) - low) / (high - low), 0.0), 1.0)

    def _clean(self, latents: torch.Tensor, prediction: torch.Tensor, level: float) -> torch.Tensor:
        signal, noise = _signal(level), _noise(level)
        if self.prediction_type == "v_prediction":
            return signal * latents - noise * prediction
        return prediction if self.prediction_type == "sample" else (latents - noise * prediction) / signal

    def _prediction(self, latents: torch.Tensor, clean: torch.Tensor, level: float) -> torch.Tensor:
        signal, noise = _signal(level), _noise(level)
        if self.prediction_type == "v_prediction":
            return (signal * latents - clean) / noise
        return clean if self.prediction_type == "sample" else (latents - signal * clean) / noise


def coarse_prediction(unet: Any, sampler: Any) -> CoarsePrediction | None:
    """Return the way to call a diffusers UNet with latents larger than it was trained for; None for most UNets."""
    side = unet.config.get(TRAINED_SIDE)
    signals = getattr(sampler, "alphas_cumprod", None)
    if not isinstance(side, int) or side < 1 or signals is None:
        return None
    levels = ((1 - signals.double()) / signals.double()).sqrt().tolist()
    return CoarsePrediction(side, levels, str(sampler.config.prediction_type))


def _signal(level: float) -> float:
    return 1 / math.sqrt(1 + level**2)


def _noise(level: float) -> float:
    return level / math.sqrt(1 + level**2)
