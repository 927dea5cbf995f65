"""Denoising in overlapping tiles that are blended after every step (MultiDiffusion, arXiv 2302.08113).

For the engine's loop the tiles are a solver: the model input is a batch of all tiles, and a step advances all tiles and
blends them.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from invokeclone.engine import denoise as loop
from invokeclone.engine import devices, preview
from invokeclone.engine.guidance import classifier_free_guidance
from invokeclone.engine.latents import check_finite
from invokeclone.engine.schedules.discrete import DiscreteSchedule
from invokeclone.engine.schedules.interface import SolverStep
from invokeclone.families.stable_diffusion.denoiser import Area, UNetDenoiser
from invokeclone.families.stable_diffusion.pipeline import DenoiseTask, conditionings, guidance_scales, prepare_run
from invokeclone.families.stable_diffusion.single_files import INPAINTING_CHANNELS


@dataclass(frozen=True)
class Tiling:
    """Sides of the tiles and their minimum overlap, in latents."""

    height: int
    width: int
    overlap: int

    def areas(self, height: int, width: int) -> list[Area]:
        """Return the tiles of an image of this size, row by row.

        Raises ValueError for tiles not larger than their overlap.
        """
        tile_height, tile_width = min(self.height, height), min(self.width, width)
        return [
            Area(top, top + tile_height, left, left + tile_width)
            for top in self._origins(height, tile_height)
            for left in self._origins(width, tile_width)
        ]

    def _origins(self, length: int, tile: int) -> list[int]:
        if tile == length:
            return [0]
        if tile <= self.overlap:
            raise ValueError(
                f"tiles of {self.width * 8} x {self.height * 8} pixels must be larger than their overlap of "
                f"{self.overlap * 8}: set larger tiles or a smaller overlap"
            )
        number = -(-(length - self.overlap) // (tile - self.overlap))
        return [index * (length - tile) // (number - 1) for index in range(number)]


def weights(areas: Sequence[Area]) -> list[torch.Tensor]:
    """Return a weight (height, width) per tile, which falls from 1 to 0 across the overlap with each neighbor."""
    return [
        torch.outer(
            _ramps(area.top, area.bottom, {(a.top, a.bottom) for a in areas}),
            _ramps(area.left, area.right, {(a.left, a.right) for a in areas}),
        )
        for area in areas
    ]


def _ramps(first: int, end: int, tiles: set[tuple[int, int]]) -> torch.Tensor:
    """Return the weight along one axis of the tile from `first` to `end`; `tiles` are all tiles of that axis."""
    result = torch.ones(end - first)
    before = max((e for f, e in tiles if f < first), default=first) - first
    after = end - min((f for f, _ in tiles if f > first), default=end)
    if before > 0:
        result[:before] *= torch.linspace(0, 1, before)
    if after > 0:
        result[-after:] *= torch.linspace(1, 0, after)
    return result


class TiledSchedule:
    """The schedule of all tiles, each with its own solver. Implements `engine.schedules.interface.Solver`."""

    def __init__(self, schedule: DiscreteSchedule, areas: Sequence[Area]) -> None:
        """Copy the schedule for each tile."""
        self.timesteps, self.order, self.training_steps = schedule.timesteps, schedule.order, schedule.training_steps
        self._areas, self._weights = areas, weights(areas)
        # generators are shared, so tiles draw different noise in sequence
        self._schedules = [replace(schedule, sampler=copy.deepcopy(schedule.sampler)) for _ in areas]

    def scale_model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """Return all tiles scaled for the model, (tiles * batch, 4, height, width)."""
        tiles = zip(self._schedules, self._areas, strict=True)
        return torch.cat([schedule.scale_model_input(_cut(latents, area), index) for schedule, area in tiles])

    def step(self, prediction: torch.Tensor, latents: torch.Tensor, index: int) -> SolverStep:
        """Return the blended result of the steps of all tiles."""
        predictions = prediction.chunk(len(self._areas))
        steps = [
            schedule.step(tile, _cut(latents, area), index)
            for schedule, tile, area in zip(self._schedules, predictions, self._areas, strict=True)
        ]
        originals = [step.original for step in steps if step.original is not None]
        original = self._blend(originals, latents) if len(originals) == len(steps) else None
        return SolverStep(self._blend([step.latents for step in steps], latents), original)

    def _blend(self, tiles: Sequence[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
        """Return the weighted mean of the tiles at each location."""
        total, share = torch.zeros_like(like), torch.zeros_like(like[:1, :1])
        for tile, area, weight in zip(tiles, self._areas, self._weights, strict=True):
            placed = weight.to(like)
            _cut(total, area).add_(tile * placed)
            _cut(share, area).add_(placed)
        return torch.where(share > 0, total / share, total)


def _cut(latents: torch.Tensor, area: Area) -> torch.Tensor:
    return latents[..., area.top : area.bottom, area.left : area.right]


def denoise(unet: Any, task: DenoiseTask, tiling: Tiling, device: torch.device, on_step: loop.OnStep) -> torch.Tensor:
    """Return denoised latents (batch, 4, height, width) on the CPU, in the UNet's number format.

    Raises ValueError for regional prompts and inpainting models, which tiling does not support; otherwise as
    `pipeline.denoise`.
    """
    # 1. unsupported inputs
    if task.positive.is_regional or task.negative.is_regional:
        raise ValueError("tiled denoising does not support regional prompts: remove the masks from the prompts")
    if unet.config.in_channels == INPAINTING_CHANNELS:
        raise ValueError("tiled denoising does not support inpainting models: select another main model")
    # 2. the schedule and the initial latents
    schedule, begun, _, _ = prepare_run(unet, task, device)
    if schedule.first is None:
        return begun.cpu()
    # 3. the tiles
    height, width = begun.shape[-2:]
    areas = tiling.areas(height, width)
    tiled = TiledSchedule(schedule, areas)
    # 4. the denoiser and its guidance, one tile at a time
    positive, negative = conditionings(unet, task, len(begun), device)
    denoiser = UNetDenoiser(unet, None, None, task.controls, len(schedule.timesteps), (height, width))
    guided = classifier_free_guidance(
        denoiser,
        positive,
        negative,
        guidance_scales(task, schedule),
        rescale=task.cfg_rescale,
        sequential=task.sequential,
    )

    def predict(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        predictions = []
        for tile, area in zip(latents.chunk(len(areas)), areas, strict=True):
            denoiser.area = area
            predictions.append(guided(tile, timestep, step))
        return torch.cat(predictions)

    # 5. the loop
    threads = devices.limit_threads(unet, len(begun) * height * width // len(areas), device)
    with preview.using(getattr(unet, "latent_colors", None)), threads:
        return check_finite(loop.run(tiled, begun, predict, denoiser.counting(on_step)).cpu())
