"""What keeps a part of the latents as it was: for samplers before each call, for flow matching after each."""

from dataclasses import dataclass
from typing import Protocol

import torch


class NoiseLevels(Protocol):
    """What a mask needs of a schedule. Index -1 is the last level of the whole schedule, also where only a part is run."""

    def add_noise(self, original: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor:
        """Return noise-free latents with the noise that is due at call `index`."""

    def level(self, index: int) -> torch.Tensor:
        """Return the time of call `index` as a share of the time of pure noise."""


@dataclass
class HardMask:
    """Puts the original, with the noise that is due, back before each call of the model.

    `change` (batch or 1, 1, height, width) is 1 where the model's result counts and 0 where the original stays; values between
    mix both.
    """

    schedule: NoiseLevels
    change: torch.Tensor
    original: torch.Tensor
    noise: torch.Tensor

    def before_step(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """Return latents whose kept part is the original with the noise of this call."""
        return torch.lerp(self.schedule.add_noise(self.original, self.noise, index), latents, self._change_at(index))

    def after_step(self, latents: torch.Tensor, index: int) -> torch.Tensor:  # noqa: ARG002
        """Return the latents as they are."""
        return latents

    def after_loop(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the finished latents with the original in its place."""
        return torch.lerp(self.original, latents, self.change)

    def preview(self, original: torch.Tensor) -> torch.Tensor:
        """Return predicted finished latents with the original, with the noise of the last level, in its place."""
        return self.before_step(original, -1)

    def _change_at(self, index: int) -> torch.Tensor:  # noqa: ARG002
        return self.change


class GradientMask(HardMask):
    """The same with a mask whose values say when a location begins to change: as soon as the noise level falls below its value."""

    def after_loop(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the finished latents with the original where nothing was to change."""
        return torch.where(self.change > 0, latents, self.original)

    def _change_at(self, index: int) -> torch.Tensor:
        level = self.schedule.level(index).to(self.change.device)
        return (self.change > level).to(self.change.dtype)


@dataclass
class FlowMask:
    """For flow matching: after each call, what has not begun to change is the original with the noise that is due.

    A location changes as soon as the noise level falls below its value of `change`.
    """

    levels: torch.Tensor
    """The noise level (0..1) after each call."""
    change: torch.Tensor
    original: torch.Tensor
    noise: torch.Tensor

    _TOLERANCE = 1e-4

    def before_step(self, latents: torch.Tensor, index: int) -> torch.Tensor:  # noqa: ARG002
        """Return the latents as they are."""
        return latents

    def after_step(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """Return latents with the original, at the noise level that was reached, in its place."""
        level = float(self.levels[index])
        changes = (self.change >= level + self._TOLERANCE).to(latents.dtype)
        preserved = self.noise * level + (1.0 - level) * self.original
        return latents * changes + preserved * (1.0 - changes)

    def after_loop(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents as they are: at level 0 the last step has put the original back."""
        return latents

    def preview(self, original: torch.Tensor) -> torch.Tensor:
        """Return the prediction as it is."""
        return original
