"""The denoise loop: from noise to latents, call by call, whatever the model, the schedule and the mask."""

from collections.abc import Callable

import torch

from invokeclone.engine.schedules.interface import MaskHook, Solver
from invokeclone.graph.context import PipelineIntermediateState

Predict = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""(latents as the model takes them, timestep, number of the step from 0) to the model's guided prediction."""
OnStep = Callable[[PipelineIntermediateState], None]
"""Called before the first call of the model and after each; stops the loop by raising CanceledException."""


def run(
    schedule: Solver, latents: torch.Tensor, predict: Predict, on_step: OnStep, mask: MaskHook | None = None
) -> torch.Tensor:
    """Return denoised latents (batch, channels, height, width)."""
    with torch.inference_mode():
        timesteps, order = schedule.timesteps, schedule.order
        total = len(timesteps)
        times = [int(value) for value in timesteps.tolist()]
        if times:
            on_step(PipelineIntermediateState(0, order, total, schedule.training_steps, latents))
        for index, timestep in enumerate(timesteps):
            # 1. what must stay as it was
            if mask is not None:
                latents = mask.before_step(latents, index)
            # 2. the model predicts
            prediction = predict(schedule.scale_model_input(latents, index), timestep, index // order)
            # 3. the solver steps
            latents, original = schedule.step(prediction, latents, index)
            if mask is not None:
                latents = mask.after_step(latents, index)
                original = None if original is None else mask.preview(original)
            # 4. progress, and the place where a canceled run ends
            on_step(PipelineIntermediateState(index + 1, order, total, times[index], latents, original))
        return latents if mask is None else mask.after_loop(latents)
