"""Protocols of schedules, solvers and masks, as the denoise loop uses them."""

from typing import NamedTuple, Protocol

import torch


class SolverStep(NamedTuple):
    """Latents after one model call, and the clean latents it predicts, if the solver provides them."""

    latents: torch.Tensor
    original: torch.Tensor | None


class MaskHook(Protocol):
    """Keeps a part of the latents while the rest is denoised. All latents are (batch, channels, height, width)."""

    def before_step(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """Return the latents for call `index` of the model."""

    def after_step(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """Return the latents after call `index`."""

    def after_loop(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the finished latents."""

    def preview(self, original: torch.Tensor) -> torch.Tensor:
        """Return predicted clean latents for the preview."""


class Solver(Protocol):
    """The model calls of one denoise run and the processing of their results. Belongs to that run."""

    @property
    def order(self) -> int:
        """Model calls per step."""

    @property
    def timesteps(self) -> torch.Tensor:
        """The time passed to the model at each call, in 0..`training_steps`; empty if there is nothing to denoise."""

    @property
    def training_steps(self) -> int:
        """The time of pure noise."""

    def scale_model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """Return the latents scaled for call `index` of the model."""

    def step(self, prediction: torch.Tensor, latents: torch.Tensor, index: int) -> SolverStep:
        """Return the result of call `index`, whose unscaled input was `latents`."""


class Schedule(Solver, Protocol):
    """A solver with the noise level of each call."""

    def start(self, latents: torch.Tensor | None, noise: torch.Tensor | None) -> torch.Tensor:
        """Return the latents for the first call. Raises ValueError if they cannot be made from the arguments."""

    def add_noise(self, original: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor:
        """Return clean latents with the noise level of call `index`."""

    def mask(
        self, change: torch.Tensor, original: torch.Tensor, noise: torch.Tensor, *, gradient: bool
    ) -> MaskHook | None:
        """Return a mask that keeps `original` where `change` is 0 and permits changes where it is 1.

        `change` has the shape (batch or 1, 1, height, width). With `gradient`, a value in between is the noise
        level below which a latent changes. None if there is nothing to mask.
        """
