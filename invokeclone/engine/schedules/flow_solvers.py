"""Solvers of flow matching other than Euler's method, over the same kind of levels."""

from dataclasses import dataclass, field

import torch

from invokeclone.engine.schedules.flow import TRAINING_STEPS, FlowSchedule, shift_levels
from invokeclone.engine.schedules.interface import SolverStep

_NOISE_MASK = 0xFFFFFFFF


def linear_levels(steps: int, shift: float = 1.0) -> list[float]:
    """Return `steps` levels from 1 to the shifted 1/1000, evenly spaced before they are shifted, and a final 0.

    So do diffusers' flow-matching schedulers: the lowest level is shifted twice.
    """
    lowest = shift_levels([1.0 / TRAINING_STEPS], shift)[0]
    levels: list[float] = torch.linspace(1.0, lowest, steps, dtype=torch.float64).tolist()
    return [*shift_levels(levels, shift), 0.0]


@dataclass
class HeunFlowSchedule(FlowSchedule):
    """Heun's method (EDM, arXiv 2206.00364, algorithm 1): each step but the last calls the model twice."""

    order: int = 2
    _start: torch.Tensor | None = field(default=None, init=False)
    _slope: torch.Tensor | None = field(default=None, init=False)

    def step(self, prediction: torch.Tensor, latents: torch.Tensor, index: int) -> SolverStep:
        """Return the latents of Euler's method, or those corrected by the velocity at its end point."""
        velocity, result_format = prediction.float(), self._result_format(prediction, latents)
        if self._start is None or self._slope is None:
            level, following = float(self.levels[index]), float(self.levels[index + 1])
            sample = latents.float()
            self._start, self._slope = sample, velocity
            original = (sample - level * velocity).to(result_format)
            return SolverStep((sample + (following - level) * velocity).to(result_format), original)
        level, following = float(self.levels[index - 1]), float(self.levels[index])
        sample, slope = self._start, 0.5 * (self._slope + velocity)
        self._start = self._slope = None
        original = (sample - level * slope).to(result_format)
        return SolverStep((sample + (following - level) * slope).to(result_format), original)


@dataclass
class ConsistencyFlowSchedule(FlowSchedule):
    """Sampling of latent consistency models (arXiv 2310.04378): the predicted original gets new noise after each call."""

    seed: int = 0
    _generator: torch.Generator | None = field(default=None, init=False)

    def step(self, prediction: torch.Tensor, latents: torch.Tensor, index: int) -> SolverStep:
        """Return the predicted original with noise of the next level, drawn on the CPU from the seed."""
        level, following = float(self.levels[index]), float(self.levels[index + 1])
        original = latents.float() - level * prediction.float()
        result_format = self._result_format(prediction, latents)
        if following == 0.0:
            return SolverStep(original.to(result_format), original.to(result_format))
        if self._generator is None:
            self._generator = torch.Generator("cpu").manual_seed((self.seed ^ _NOISE_MASK) % 2**32)
        noise = torch.randn(latents.shape, generator=self._generator).to(original)
        mixed = (1.0 - following) * original + following * noise
        return SolverStep(mixed.to(result_format), original.to(result_format))


def heun_flow_schedule(levels: list[float], device: torch.device) -> HeunFlowSchedule:
    """Return Heun's schedule over `levels`, the last of which is 0 or where the run ends."""
    calls = [levels[0], *(level for level in levels[1:-1] for _ in range(2)), levels[-1]]
    return HeunFlowSchedule(torch.tensor(calls, dtype=torch.float32), _times(calls, device))


def consistency_flow_schedule(levels: list[float], device: torch.device, seed: int) -> ConsistencyFlowSchedule:
    """Return the schedule over `levels` whose noise is drawn from `seed`."""
    schedule = ConsistencyFlowSchedule(torch.tensor(levels, dtype=torch.float32), _times(levels, device))
    schedule.seed = seed
    return schedule


def _times(levels: list[float], device: torch.device) -> torch.Tensor:
    return torch.tensor(levels[:-1], dtype=torch.float32, device=device) * TRAINING_STEPS
