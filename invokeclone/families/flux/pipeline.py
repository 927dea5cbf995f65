"""FLUX.1's pipeline: encode the prompt, prepare, denoise, decode."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from invokeclone.components.autoencoders import vae as autoencoder
from invokeclone.components.flux.conditioning import FLUXConditioningInfo
from invokeclone.components.text_encoders.encode import encode_t5
from invokeclone.engine import denoise as loop
from invokeclone.engine import devices
from invokeclone.engine.guidance import classifier_free_guidance
from invokeclone.engine.latents import noise as draw_noise
from invokeclone.engine.masks import change_mask
from invokeclone.engine.schedules import flow, flow_solvers
from invokeclone.engine.schedules.flow import FlowSchedule
from invokeclone.families.flux.conditioning import FluxConditioning
from invokeclone.families.flux.denoiser import Control, FluxDenoiser, ImagePrompt, PositionScaling, Reference
from invokeclone.families.flux.tokens import PACKING

CHANNELS = 16
PACKED_CHANNELS = CHANNELS * PACKING * PACKING
NOISE_DTYPE = torch.float16
"""The number format in which noise is drawn, whatever the network's."""


def encode(
    clip: tuple[Any, Any], t5: tuple[Any, Any], prompt: str, tokens: int, devices_: tuple[torch.device, torch.device]
) -> FLUXConditioningInfo:
    """Return CLIP's pooled embedding and T5's embeddings (1, tokens, width) of a prompt, on the CPU.

    `clip` and `t5` are pairs of tokenizer and encoder, which compute on the devices in `devices_`.
    """
    return FLUXConditioningInfo(
        encode_clip(*clip, prompt, devices_[0]).cpu(), encode_t5(*t5, prompt, tokens, devices_[1]).cpu()
    )


def encode_clip(tokenizer: Any, text_encoder: Any, prompt: str, device: torch.device) -> torch.Tensor:
    """Return CLIP's pooled embedding (1, width) of a prompt, of which at most 77 tokens are used."""
    with torch.inference_mode():
        encoded = tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        pooled: torch.Tensor = text_encoder(encoded["input_ids"].to(device)).pooler_output
        return pooled


@dataclass
class DenoiseTask:
    """The inputs of a denoise run. Tensors may be on any device; latents and noise are (batch, 16, height, width)."""

    positive: FluxConditioning
    negative: FluxConditioning | None
    noise: torch.Tensor
    steps: int
    latents: torch.Tensor | None = None
    scheduler: str = "euler"
    shifted: bool = True
    """Whether the noise levels are shifted by the image's size, as for all models but schnell."""
    guidance: float = 4.0
    cfg_scale: float | list[float] = 1.0
    cfg_start: int = 0
    """First step with guidance by the negative prompt; negative numbers count from the end."""
    cfg_end: int = -1
    start: float = 0.0
    end: float = 1.0
    add_noise: bool = True
    seed: int = 0
    keep_mask: torch.Tensor | None = None
    """Shape (batch or 1, 1, any height, any width), 1 where the image is kept."""
    added: torch.Tensor | None = None
    references: Sequence[Reference] = ()
    controls: Sequence[Control] = ()
    image_prompts: Sequence[ImagePrompt] = ()
    scaling: PositionScaling | None = None


def noise_for(seed: int, width: int, height: int) -> torch.Tensor:
    """Return the noise (1, 16, height / 8, width / 8) of an image in pixels."""
    shape = (1, CHANNELS, PACKING * -(-height // 16), PACKING * -(-width // 16))
    return draw_noise(seed, shape, devices.CPU_DEVICE, NOISE_DTYPE)


def denoise(transformer: Any, task: DenoiseTask, device: torch.device, on_step: loop.OnStep) -> torch.Tensor:
    """Return denoised latents (batch, 16, height, width) on the CPU, in the transformer's number format.

    `on_step` is called for each call of the transformer and may end the run. Raises ValueError for inputs that do not
    fit each other, and for NaN or infinite results.
    """
    dtype = transformer.dtype
    latents, noise = (None if t is None else t.to(device, dtype) for t in (task.latents, task.noise))
    assert noise is not None
    if latents is not None and latents.shape[1:] != noise.shape[1:]:
        raise ValueError(f"latents and noise differ in size: {list(latents.shape)} and {list(noise.shape)}")
    _check_channels(transformer, task)
    # 1. the schedule and the initial latents
    schedule, steps = _schedule(task, noise, device)
    if latents is not None and not task.add_noise:
        initial = latents
    else:
        initial = schedule.start(latents, noise)
    if not len(schedule.timesteps):
        return initial.cpu()
    # 2. the mask
    mask = None
    if task.keep_mask is not None:
        original = latents if latents is not None else torch.zeros_like(noise)
        mask = schedule.mask(change_mask(task.keep_mask, initial), original, noise, gradient=True)
    # 3. the denoiser and its guidance
    positive = task.positive.to(device, dtype)
    negative = None if task.negative is None else task.negative.to(device, dtype)
    denoiser = FluxDenoiser(
        transformer,
        task.guidance,
        count=steps,
        steps=[index // schedule.order for index in range(len(schedule.timesteps))],
        added=None if task.added is None else task.added.to(device, dtype),
        references=[Reference(r.tokens.to(device, dtype), r.positions) for r in task.references],
        controls=task.controls,
        image_prompts=task.image_prompts,
        scaling=task.scaling,
    )
    scales = guidance_scales(task.cfg_scale, steps, task.cfg_start, task.cfg_end)
    if negative is None and any(scale != 1.0 for scale in scales):
        raise ValueError(
            "a cfg_scale other than 1 needs negative_text_conditioning: connect one, or set cfg_scale to 1 "
            "(`guidance` needs none)"
        )
    predict = classifier_free_guidance(denoiser, positive, negative, scales, sequential=True)
    # 4. the loop
    threads = devices.limit_threads(transformer, initial[:, 0].numel() // PACKING**2, device)
    with threads:
        result = loop.run(schedule, initial, predict, denoiser.counting(on_step), mask).cpu()
    return check_finite(result)


def check_finite(latents: torch.Tensor) -> torch.Tensor:
    """Return the latents. Raises ValueError for NaN or infinite values, which would give a black image."""
    if not bool(torch.isfinite(latents).all()):
        raise ValueError(
            "denoising produced NaN or infinite values: the model, or one of its LoRAs, is damaged (install it again)"
        )
    return latents


def guidance_scales(scale: float | Sequence[float], steps: int, start: int, end: int) -> list[float]:
    """Return the guidance scale of each of `steps` steps: 1 outside `start` to `end`, which may count from the end.

    The last value of a short list applies to the remaining steps. Raises ValueError for an empty list.
    """
    listed = list(scale) if isinstance(scale, Sequence) else [scale]
    if not listed:
        raise ValueError("cfg_scale has no values: give one number, or one per step")
    first, last = (index + steps if index < 0 else index for index in (start, end))
    return [listed[min(step, len(listed) - 1)] if first <= step <= last else 1.0 for step in range(steps)]


def _schedule(task: DenoiseTask, noise: torch.Tensor, device: torch.device) -> tuple[FlowSchedule, int]:
    """Return the schedule and its number of steps."""
    if task.steps < 1:
        raise ValueError(f"num_steps must be at least 1, not {task.steps}")
    if task.scheduler == "euler":
        levels = flow.even_levels(task.steps)
        if task.shifted:
            tokens = noise[0, 0].numel() // PACKING**2
            levels = flow.shift_levels(levels, flow.shift_by_tokens(tokens))
        levels = flow.clip_levels(levels, task.start, task.end)
        return flow.flow_schedule(levels, device), len(levels) - 1
    levels = flow.clip_levels(flow_solvers.trained_levels(task.steps), task.start, task.end)
    if task.scheduler == "heun":
        return flow_solvers.heun_flow_schedule(levels, device), len(levels) - 1
    return flow_solvers.consistency_flow_schedule(levels, device, task.seed), len(levels) - 1


def _check_channels(transformer: Any, task: DenoiseTask) -> None:
    """Raise ValueError if the transformer needs channels that the task does not add, or the other way round."""
    needed = transformer.config.in_channels - PACKED_CHANNELS
    added = 0 if task.added is None else task.added.shape[-1]
    if needed == added:
        return
    if needed and not added:
        raise ValueError(
            "this is a model for inpainting (FLUX.1 Fill) or with a control image: connect fill_conditioning, or select "
            "another model"
        )
    raise ValueError(
        f"this model takes {needed} additional channels, not {added}: fill_conditioning is for FLUX.1 Fill models, "
        "control_lora for FLUX.1 dev"
    )


def vae_dtype(vae: Any, device: torch.device) -> torch.dtype:
    """Return the number format in which an autoencoder computes: the one it was loaded in."""
    dtype: torch.dtype = next(vae.parameters()).dtype
    return torch.float32 if device.type == "cpu" else dtype


def decode(vae: Any, latents: torch.Tensor, device: torch.device, *, tile: int | None = None) -> Image.Image:
    """Return the image of scaled latents; `tile` as in `components.autoencoders.vae.decode`."""
    pixels = autoencoder.decode(vae, latents, device, vae_dtype(vae, device), tile=tile)
    return autoencoder.tensor_to_image(pixels, rounded=False)


def encode_image(vae: Any, pixels: torch.Tensor, device: torch.device, *, tile: int | None = None) -> torch.Tensor:
    """Return the scaled latents (1, 16, height / 8, width / 8) of an image (1, 3, height, width) in -1..1, on the CPU."""
    return autoencoder.encode(vae, pixels, device, vae_dtype(vae, device), tile=tile).cpu()
