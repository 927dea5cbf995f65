"""The denoise loop, shared by all models, schedules and masks."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from invokeclone.engine.schedules.interface import MaskHook, Solver
from invokeclone.graph.context import PipelineIntermediateState

Predict = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""Guided prediction of the model from (scaled latents, timestep, step number from 0)."""
OnStep = Callable[[PipelineIntermediateState], None]
"""Called before the first model call and after each; raises CanceledException to stop the loop."""


@dataclass(frozen=True, slots=True)
class Position:
    """The position of a model call in the loop: `index`, from 0, of `total`."""

    index: int
    total: int


_position: ContextVar[Position | None] = ContextVar("denoise_position", default=None)


def position() -> Position | None:
    """Return the position of this thread's loop; None outside of one."""
    return _position.get()


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
            # 1. restore the kept part
            if mask is not None:
                latents = mask.before_step(latents, index)
            # 2. predict
            token = _position.set(Position(index, total))
            try:
                prediction = predict(schedule.scale_model_input(latents, index), timestep, index // order)
            finally:
                _position.reset(token)
            # 3. solver step
            latents, original = schedule.step(prediction, latents, index)
            if mask is not None:
                latents = mask.after_step(latents, index)
                original = None if original is None else mask.preview(original)
            # 4. report progress; a canceled run ends here
            on_step(PipelineIntermediateState(index + 1, order, total, times[index], latents, original))
        return latents if mask is None else mask.after_loop(latents)
