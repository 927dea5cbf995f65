"""Inputs of flow-matching runs whose noise is drawn from the run's seed: checks, initial latents, mask."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from invokeclone.engine import devices
from invokeclone.engine.latents import noise as draw_noise
from invokeclone.engine.masks import change_mask
from invokeclone.engine.schedules.flow import FlowSchedule
from invokeclone.engine.schedules.masks import FlowMask
from invokeclone.graph.vocabulary.architectures import LatentSpace


@dataclass
class FlowInputs:
    """The settings of a run. Latents and noise are (batch, channels, height, width), on any device."""

    width: int
    """In pixels, as is the height."""
    height: int
    steps: int
    seed: int = 0
    start: float = 0.0
    """Fraction of the schedule that is skipped at the beginning."""
    end: float = 1.0
    cfg_scale: float | list[float] = 1.0
    """One guidance scale, or one per step."""
    latents: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    """None: drawn from the seed."""
    keep_mask: torch.Tensor | None = None
    """Shape (batch or 1, 1, any height, any width), 1 where the image is kept."""
    guidance_end: float = 1.0
    """Fraction of the steps after which the negative prompt is not used."""
    sequential: bool = False
    """Whether the network is called for the two prompts one after the other."""
    add_noise: bool = True
    """Whether latents get the noise of the first level; without it they are the start as they are."""


def prepare(
    inputs: FlowInputs,
    space: LatentSpace,
    schedule: FlowSchedule,
    device: torch.device,
    dtype: torch.dtype,
    normalize: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[torch.Tensor, FlowMask | None]:
    """Return the latents that a run starts from and its mask, on `device` in `dtype`.

    Noise is drawn on the CPU, in float16 or in the float32 of the latent space, unless it is given. `normalize` brings
    latents to the noise's scale. Raises ValueError for sides off the grid, latents or noise of another size, of
    different batch sizes or with NaN or infinite values, a mask without latents, and a later start without latents.
    """
    shape = space.noise_shape(inputs.width, inputs.height)
    drawn = torch.float32 if space.float32_noise else torch.float16
    noise = draw_noise(inputs.seed, shape, devices.CPU_DEVICE, drawn) if inputs.noise is None else inputs.noise
    _check("noise", noise, shape)
    noise, latents = noise.to(device, dtype), None
    if inputs.latents is not None:
        _check("latents", inputs.latents, shape)
        latents = inputs.latents if normalize is None else normalize(inputs.latents)
        latents, noise = _with_equal_batches(latents.to(device, dtype), noise)
    initial = schedule.start(latents, noise if inputs.add_noise or latents is None else None)
    if inputs.keep_mask is None:
        return initial, None
    if latents is None:
        raise ValueError("denoise_mask needs the latents of the image that it keeps: connect latents, or remove it")
    return initial, schedule.mask(change_mask(inputs.keep_mask, initial), latents, noise, gradient=True)


def _with_equal_batches(latents: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both with the larger batch size. Raises ValueError if one is neither 1 nor that."""
    rows = max(len(latents), len(noise))
    if {len(latents), len(noise)} - {1, rows}:
        raise ValueError(
            f"latents has {len(latents)} images and noise {len(noise)}: give both the same number, or one of them one image"
        )
    return latents.expand(rows, -1, -1, -1), noise.expand(rows, -1, -1, -1)


def _check(name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError for a tensor that is not finite or not of this shape, whatever its batch size."""
    if tensor.shape[1:] != shape[1:]:
        actual, expected = (" x ".join(str(side) for side in sizes[1:]) for sizes in (tensor.shape, shape))
        raise ValueError(
            f"{name} must be {expected} (channels, height, width) for this model, width and height, not {actual}: "
            "use the model's own nodes, and the same width and height everywhere"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} has NaN or infinite values: the node that made it, or its model, is broken")
