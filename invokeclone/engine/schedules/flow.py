"""Flow matching (rectified flow) schedules.

Latents are level · noise + (1 - level) · original; levels fall from 1 to 0.
"""

import math
from dataclasses import dataclass

import torch

from invokeclone.engine.schedules.interface import SolverStep
from invokeclone.engine.schedules.masks import FlowMask

TRAINING_STEPS = 1000
MAX_STEPS = 10_000
_MIN_START = 1e-5
_MIN_REST = 1e-6


def even_levels(steps: int) -> list[float]:
    """Return `steps` + 1 levels from 1 to 0, evenly spaced. Raises ValueError for more than MAX_STEPS."""
    if steps > MAX_STEPS:
        raise ValueError(f"steps must be at most {MAX_STEPS}, not {steps}")
    levels: list[float] = torch.linspace(1.0, 0.0, steps + 1).tolist()
    return levels


def shift_levels(levels: list[float], factor: float) -> list[float]:
    """Return levels moved towards noise: factor / (factor + 1 / level - 1); 1 and 0 stay (arXiv 2403.03206, 5.3.2)."""
    return [factor / (factor + 1.0 / level - 1.0) if 0.0 < level < 1.0 else level for level in levels]


def shift_by_tokens(tokens: int, low: tuple[int, float] = (256, 0.5), high: tuple[int, float] = (4096, 1.15)) -> float:
    """Return the factor for `shift_levels` by the number of image tokens: exp of a line through two points."""
    slope = (high[1] - low[1]) / (high[0] - low[0])
    return math.exp(low[1] + slope * (tokens - low[0]))


def clip_levels(levels: list[float], start: float, end: float) -> list[float]:
    """Return the levels of a run from `start` to `end` (0..1): those in between and exactly 1 - start and 1 - end."""
    first, last = 1.0 - start, 1.0 - end
    begin = max(index for index, level in enumerate(levels) if level >= first)
    stop = max(index for index, level in enumerate(levels) if level >= last)
    run_levels = [first, *levels[begin + 1 : stop + 1]]
    if run_levels[-1] > last + _MIN_REST:
        run_levels.append(last)
    return run_levels


def refill_levels(levels: list[float], steps: int, factor: float) -> list[float]:
    """Return `steps` + 1 levels from the first to the last of `levels`, evenly spaced before the shift by `factor`."""
    first, last = shift_levels([levels[0], levels[-1]], 1.0 / factor)
    between: list[float] = torch.linspace(first, last, steps + 1, dtype=torch.float64).tolist()
    return [levels[0], *shift_levels(between[1:-1], factor), levels[-1]]


@dataclass
class FlowSchedule:
    """Euler's method over given levels."""

    levels: torch.Tensor
    """Shape (calls + 1), float32; the run ends at the last level."""
    timesteps: torch.Tensor
    """Shape (calls), the times passed to the model."""
    order: int = 1
    training_steps: int = TRAINING_STEPS
    rounds_length: bool = False
    """Whether the length of a step is rounded to the prediction's number format, as diffusers' schedulers do."""
    keeps_format: bool = False
    """Whether latents keep their number format if predictions are in another; else they get the prediction's."""

    def start(self, latents: torch.Tensor | None, noise: torch.Tensor | None) -> torch.Tensor:
        """Return noise, latents with the noise of the first level, or latents unchanged.

        Raises ValueError when both are missing, and for noise without latents when the run does not start at
        pure noise.
        """
        level = float(self.levels[0])
        if noise is None:
            if latents is None:
                raise ValueError("denoising needs latents or noise to start from")
            return latents
        if latents is None:
            if level < 1.0 - _MIN_START:
                raise ValueError("denoising_start above 0 needs latents to start from")
            return noise
        return level * noise + (1.0 - level) * latents

    def add_noise(self, original: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor:
        """Return clean latents with the noise level of call `index`."""
        level = float(self.levels[index])
        return level * noise + (1.0 - level) * original

    def scale_model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:  # noqa: ARG002
        """Return the latents unchanged."""
        return latents

    def step(self, prediction: torch.Tensor, latents: torch.Tensor, index: int) -> SolverStep:
        """Return latents moved along the predicted velocity.

        The change is computed in the prediction's number format, added in float32, and the sum is in the prediction's
        format, or in that of the latents (`keeps_format`).
        """
        level, following = float(self.levels[index]), float(self.levels[index + 1])
        sample, result_format = latents.float(), self._result_format(prediction, latents)
        original = (sample - level * prediction).to(result_format)
        length = following - level
        if self.rounds_length:
            length = round_to(length, prediction.dtype)
        return SolverStep((sample + length * prediction).to(result_format), original)

    def _result_format(self, prediction: torch.Tensor, latents: torch.Tensor) -> torch.dtype:
        return latents.dtype if self.keeps_format else prediction.dtype

    def mask(
        self,
        change: torch.Tensor,
        original: torch.Tensor,
        noise: torch.Tensor,
        *,
        gradient: bool,  # noqa: ARG002  (flow matching has only gradient masks)
    ) -> FlowMask:
        """Return a mask that restores the original after each call."""
        return FlowMask(self.levels[1:], change, original, noise)


def round_to(value: float, dtype: torch.dtype) -> float:
    """Return a number rounded to a number format."""
    return float(torch.tensor(value, dtype=dtype))


def flow_schedule(
    levels: list[float], device: torch.device, times: list[float] | None = None, *, rounds_length: bool = False
) -> FlowSchedule:
    """Return the schedule over `levels`.

    The model receives level · 1000 as time, or 1000 times the values of `times`. `rounds_length` is as in FlowSchedule.
    """
    time_levels = levels if times is None else times
    return FlowSchedule(
        torch.tensor(levels, dtype=torch.float32),
        torch.tensor(time_levels[: len(levels) - 1], dtype=torch.float32, device=device) * TRAINING_STEPS,
        rounds_length=rounds_length,
    )
