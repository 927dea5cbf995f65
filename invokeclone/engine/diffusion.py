"""The denoise loop: from noise to latents, step by step, with a mask of what must stay as it was.

What predicts the noise comes in as a function, and who watches the steps too; models and prompts it refuses to know.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from invokeclone.engine.samplers import Schedule
from invokeclone.graph.context import PipelineIntermediateState

Predict = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""(scaled latents, timestep, number of the step from 0) to the model's prediction."""
OnStep = Callable[[PipelineIntermediateState], None]
"""Told of each step; stops the loop by raising CanceledException."""


@dataclass
class Inpainting:
    """What must stay as it was. All tensors lie on the device of the latents.

    `keep` (1, 1, height, width) is 1 where the original stays and 0 where it changes. With `gradient` a value between says
    from which share of the steps on a place may change: 0.75 only in the last quarter.
    """

    keep: torch.Tensor
    original: torch.Tensor
    noise: torch.Tensor
    gradient: bool = False

    def before(self, latents: torch.Tensor, schedule: Schedule, timestep: torch.Tensor) -> torch.Tensor:
        """Return latents whose kept places are the original with the noise that is due."""
        noisy = schedule.add_noise(self.original, self.noise, timestep)
        return torch.lerp(latents, noisy, self._kept(timestep, schedule))

    def after(self, latents: torch.Tensor) -> torch.Tensor:
        """Return finished latents with the original back in its places."""
        keep = (self.keep >= 1.0).to(latents.dtype) if self.gradient else self.keep
        return torch.lerp(latents, self.original, keep)

    def _kept(self, timestep: torch.Tensor, schedule: Schedule) -> torch.Tensor:
        if not self.gradient:
            return self.keep
        done = 1.0 - timestep.float() / schedule.scheduler.config.num_train_timesteps
        return (self.keep > done.to(self.keep.device)).to(self.keep.dtype)


def start(schedule: Schedule, latents: torch.Tensor | None, noise: torch.Tensor | None) -> torch.Tensor:
    """Return what the loop begins with: noise alone, latents with the noise of the first timestep, or latents as they are.

    Raises ValueError when both are missing.
    """
    if noise is None:
        if latents is None:
            raise ValueError("denoising needs latents or noise to begin with")
        return latents
    if latents is None:
        if schedule.whole or not len(schedule.timesteps):
            return noise * float(schedule.scheduler.init_noise_sigma)
        latents = torch.zeros_like(noise)
    if not len(schedule.timesteps):
        return latents
    return schedule.add_noise(latents, noise, schedule.timesteps[0])


def run(
    schedule: Schedule,
    latents: torch.Tensor,
    predict: Predict,
    on_step: OnStep,
    inpainting: Inpainting | None = None,
) -> torch.Tensor:
    """Return denoised latents. `on_step` hears of the beginning and of every timestep, so once more than there are of them."""
    with torch.inference_mode():
        timesteps, total = schedule.timesteps, len(schedule.timesteps)
        numbers: list[int] = [int(value) for value in timesteps.tolist()]
        if numbers:
            on_step(PipelineIntermediateState(0, schedule.order, total, numbers[0], latents))
        for index, timestep in enumerate(timesteps):
            # 1. what must stay gets its original back
            if inpainting is not None:
                latents = inpainting.before(latents, schedule, timestep)
            # 2. the model predicts
            scaled = schedule.scheduler.scale_model_input(latents, timestep)
            prediction = predict(scaled, timestep, index // schedule.order)
            # 3. the scheduler steps
            stepped = schedule.step(prediction, timestep, latents)
            latents = stepped.prev_sample
            # 4. the watcher hears of it and may stop everything
            original = _predicted_original(stepped, schedule.scheduler)
            on_step(PipelineIntermediateState(index + 1, schedule.order, total, numbers[index], latents, original))
        return latents if inpainting is None else inpainting.after(latents)


def _predicted_original(stepped: Any, scheduler: Any) -> torch.Tensor | None:
    """Return what the finished latents look like by the latest prediction, where the scheduler knows it."""
    told: torch.Tensor | None = getattr(stepped, "pred_original_sample", None)
    if told is not None:
        return told
    config = scheduler.config
    if getattr(config, "algorithm_type", "").endswith("dpmsolver++") or getattr(config, "predict_x0", False):
        known: torch.Tensor | None = scheduler.model_outputs[-1]
        return known
    return None
