"""Masks that keep a part of the latents: before each call for samplers, after each call for flow matching."""

from dataclasses import dataclass
from typing import Protocol

import torch


class NoiseLevels(Protocol):
    """The part of a schedule that masks use.

    Index -1 is the last level of the whole schedule, even if only a part is run.
    """

    def add_noise(self, original: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor:
        """Return clean latents with the noise level of call `index`."""

    def level(self, index: int) -> torch.Tensor:
        """Return the time of call `index` as a fraction of the time of pure noise."""


@dataclass
class HardMask:
    """Restores the original, with the current noise level, before each model call.

    `change` (batch or 1, 1, height, width) is 1 where the model's result is used and 0 where the original stays;
    values in between blend both.
    """

    schedule: NoiseLevels
    change: torch.Tensor
    original: torch.Tensor
    noise: torch.Tensor

    def before_step(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """Return latents whose kept part is the original with the noise of this call."""
        return torch.lerp(self.schedule.add_noise(self.original, self.noise, index), latents, self._change_at(index))

    def after_step(self, latents: torch.Tensor, index: int) -> torch.Tensor:  # noqa: ARG002
        """Return the latents unchanged."""
        return latents

    def after_loop(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the finished latents with the original in the kept part."""
        return torch.lerp(self.original, latents, self.change)

    def preview(self, original: torch.Tensor) -> torch.Tensor:
        """Return predicted clean latents with the original, at the last noise level, in the kept part."""
        return self.before_step(original, -1)

    def _change_at(self, index: int) -> torch.Tensor:  # noqa: ARG002
        return self.change


class GradientMask(HardMask):
    """A mask whose value is the noise level below which a latent starts to change."""

    def after_loop(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the finished latents with the original where nothing was to change."""
        return torch.where(self.change > 0, latents, self.original)

    def _change_at(self, index: int) -> torch.Tensor:
        level = self.schedule.level(index).to(self.change.device)
        return (self.change > level).to(self.change.dtype)


@dataclass
class FlowMask:
    """Mask for flow matching: after each call, latents that do not change yet are the original with the current noise.

    A latent changes as soon as the noise level falls below its value of `change`.
    """

    levels: torch.Tensor
    """The noise level (0..1) after each call."""
    change: torch.Tensor
    original: torch.Tensor
    noise: torch.Tensor

    _TOLERANCE = 1e-4

    def before_step(self, latents: torch.Tensor, index: int) -> torch.Tensor:  # noqa: ARG002
        """Return the latents unchanged."""
        return latents

    def after_step(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """Return latents with the original, at the current noise level, in the kept part."""
        level = float(self.levels[index])
        changes = (self.change >= level + self._TOLERANCE).to(latents.dtype)
        preserved = self.noise * level + (1.0 - level) * self.original
        return latents * changes + preserved * (1.0 - changes)

    def after_loop(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents unchanged: at level 0 the last step has already restored the original."""
        return latents

    def preview(self, original: torch.Tensor) -> torch.Tensor:
        """Return the prediction unchanged."""
        return original
