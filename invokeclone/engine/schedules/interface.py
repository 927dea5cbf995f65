"""What the denoise loop needs of a schedule, whichever kind it is."""

from typing import NamedTuple, Protocol

import torch


class SolverStep(NamedTuple):
    """Latents after one call of the model, and what the finished latents look like by its prediction, if the solver knows."""

    latents: torch.Tensor
    original: torch.Tensor | None


class MaskHook(Protocol):
    """Keeps a part of the latents as it was while the rest is denoised. All latents are (batch, channels, height, width)."""

    def before_step(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """Return the latents that call `index` of the model is to see."""

    def after_step(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """Return the latents after call `index`."""

    def after_loop(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the finished latents."""

    def preview(self, original: torch.Tensor) -> torch.Tensor:
        """Return predicted finished latents for showing."""


class Solver(Protocol):
    """The calls of the model in one denoise run and what becomes of their results. Belongs to that run."""

    @property
    def order(self) -> int:
        """Calls of the model per step."""

    @property
    def timesteps(self) -> torch.Tensor:
        """What the model is given as time at each call, in 0..`training_steps`; empty where nothing is left to be denoised."""

    @property
    def training_steps(self) -> int:
        """The time of pure noise."""

    def scale_model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """Return the latents as the model takes them at call `index`."""

    def step(self, prediction: torch.Tensor, latents: torch.Tensor, index: int) -> SolverStep:
        """Return the result of call `index`, whose unscaled input was `latents`."""


class Schedule(Solver, Protocol):
    """A solver with the noise level of each call."""

    def start(self, latents: torch.Tensor | None, noise: torch.Tensor | None) -> torch.Tensor:
        """Return what the first call begins with; raises ValueError for what cannot be begun with."""

    def add_noise(self, original: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor:
        """Return noise-free latents with the noise that is due at call `index`."""

    def mask(
        self, change: torch.Tensor, original: torch.Tensor, noise: torch.Tensor, *, gradient: bool
    ) -> MaskHook | None:
        """Return what keeps `original` where `change` (batch or 1, 1, height, width) is 0 and lets it change where it is 1.

        With `gradient` values between say from which noise level on a location changes. None: nothing is to be done.
        """
