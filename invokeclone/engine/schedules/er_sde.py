"""Extended Reverse-Time SDE solver (Cui et al., arXiv 2309.06169) as a diffusers scheduler.

Variance preserving, orders 1 to 3. The noise schedule, prediction types and adding noise are inherited.
"""

from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor

INTEGRATION_STEPS = 100


def noise_scale(ratio: Any) -> Any:
    """Return the paper's fifth noise scale function, x (exp(x^0.3) + 10), of a noise-to-signal ratio."""
    return ratio * (np.exp(ratio**0.3) + 10.0)


def integrals(low: float, high: float) -> tuple[float, float]:
    """Return the integrals of 1 / noise_scale(x) and of (x - high) / noise_scale(x) from `low` > 0 to `high`.

    They are left Riemann sums over INTEGRATION_STEPS equal steps, as in the reference implementation; exact
    integrals give a different image.
    """
    step = (high - low) / INTEGRATION_STEPS
    points = low + step * np.arange(INTEGRATION_STEPS)
    density = 1.0 / noise_scale(points)
    return float(density.sum() * step), float(((points - high) * density).sum() * step)


class ERSDEScheduler(DPMSolverMultistepScheduler):  # type: ignore[misc]  # diffusers has no types
    """ER-SDE-Solver-3, which starts with orders 1 and 2.

    Timesteps, sigmas and `add_noise` are those of DPM-Solver++.
    """

    model_outputs: list[Any]
    lower_order_nums: int

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | None = None,
        variance_noise: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[torch.Tensor]:
        """Return the sample at the next timestep. Noise is drawn from `generator` unless `variance_noise` is given."""
        if self.step_index is None:
            self._init_step_index(timestep)
        index = self.step_index
        original = self.convert_model_output(model_output, sample=sample).to(torch.float32)
        self.model_outputs = [*self.model_outputs[1:], original]
        ratio, following = (float(self.sigmas[i]) for i in (index, index + 1))
        if following == 0.0:
            stepped = original
        else:
            noise = variance_noise
            if noise is None:
                noise = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=model_output.dtype)
            stepped = self._advance(sample.to(torch.float32), noise.to(torch.float32), index, ratio, following)
        self.lower_order_nums = min(self.lower_order_nums + 1, self.config.solver_order)
        self._step_index += 1
        stepped = stepped.to(model_output.dtype)
        return SchedulerOutput(prev_sample=stepped) if return_dict else (stepped,)

    def _advance(
        self, sample: torch.Tensor, noise: torch.Tensor, index: int, ratio: float, following: float
    ) -> torch.Tensor:
        """Solve from noise-to-signal `ratio` to `following`; both > 0."""
        signal, next_signal = (1.0 / (1.0 + value**2) ** 0.5 for value in (ratio, following))
        scale = float(noise_scale(following))
        shrink = scale / float(noise_scale(ratio))
        originals = self.model_outputs
        # 1. order one: the exact solution for a constant predicted original
        result = shrink * sample / signal + (1.0 - shrink) * originals[-1]
        # 2. orders two and three: linear and quadratic change, estimated from earlier predictions
        order = min(self.lower_order_nums + 1, self.config.solver_order)
        if order > 1:
            area, moment = integrals(following, ratio)
            step = following - ratio
            before = float(self.sigmas[index - 1])
            slope = (originals[-1] - originals[-2]) / (ratio - before)
            result = result + (step + scale * area) * slope
            if order > 2:  # noqa: PLR2004 - an order
                earlier = float(self.sigmas[index - 2])
                old_slope = (originals[-2] - originals[-3]) / (before - earlier)
                curve = (slope - old_slope) / ((ratio - earlier) / 2.0)
                result = result + (step**2 / 2.0 + scale * moment) * curve
        # 3. the stochastic part, which keeps the noise at its due amount
        spread = max(following**2 - (ratio * shrink) ** 2, 0.0) ** 0.5
        return next_signal * (result + spread * noise)
