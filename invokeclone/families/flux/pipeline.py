"""FLUX.1's pipeline: encode the prompt, prepare, denoise."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from invokeclone.components.autoencoders import latent_spaces
from invokeclone.components.flux.tokens import PACKING
from invokeclone.engine import denoise as loop
from invokeclone.engine import devices
from invokeclone.engine.block_cache import first_block_cache
from invokeclone.engine.flow_inputs import FlowInputs, prepare
from invokeclone.engine.guidance import classifier_free_guidance, truncate_guidance
from invokeclone.engine.latents import check_finite
from invokeclone.engine.patches import input_formats
from invokeclone.engine.schedules import flow, flow_solvers
from invokeclone.engine.schedules.flow import FlowSchedule
from invokeclone.families.flux.conditioning import FluxConditioning
from invokeclone.families.flux.denoiser import FluxControl, FluxDenoiser, FluxImageAttention, PositionScaling, Reference
from invokeclone.kit import log

logger = log.get("families.flux")
PACKED_CHANNELS = latent_spaces.FLUX.channels * PACKING**2
PIXELS_PER_TOKEN_SIDE = latent_spaces.FLUX.spatial_factor * PACKING


def encode_clip(tokenizer: Any, text_encoder: Any, prompt: str, device: torch.device) -> torch.Tensor:
    """Return CLIP's pooled embedding (1, width) of a prompt, of which at most 77 tokens are used."""
    with torch.inference_mode():
        encoded = tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        unprojected = getattr(text_encoder, "text_model", text_encoder)  # Stable Diffusion 3's projects its output
        pooled: torch.Tensor = unprojected(encoded["input_ids"].to(device)).pooler_output
        return pooled


@dataclass
class FluxDenoiseTask:
    """The inputs of a denoise run. Tensors may be on any device."""

    inputs: FlowInputs
    positive: FluxConditioning
    negative: FluxConditioning | None
    scheduler: str = "euler"
    shifted: bool = True
    """Whether the noise levels are shifted by the image's size, as for all models but schnell."""
    guidance: float = 4.0
    cfg_start: int = 0
    """First step with guidance by the negative prompt; negative numbers count from the end."""
    cfg_end: int = -1
    added: torch.Tensor | None = None
    """Tokens (1, tokens, channels) concatenated to the image tokens along the channels."""
    control_image: torch.Tensor | None = None
    """Tokens (1, tokens, 64) of the image of a control LoRA, which is applied to the transformer."""
    references: Sequence[Reference] = ()
    controls: Sequence[FluxControl] = ()
    image_prompts: Sequence[FluxImageAttention] = ()
    scaling: PositionScaling | None = None
    cache_threshold: float | None = None
    """Threshold of the first-block cache; None computes every block in every step."""


def denoise(transformer: Any, task: FluxDenoiseTask, device: torch.device, on_step: loop.OnStep) -> torch.Tensor:
    """Return denoised latents (batch, 16, height, width) on the CPU, in the transformer's number format.

    With FLUX.1 Fill on the CPU they are in float32. `on_step` is called for each call of the transformer and may end the run. Raises ValueError for inputs that do not
    fit each other, and for NaN or infinite results.
    """
    dtype = transformer.dtype
    _check_channels(transformer, task)
    _check_prompts(transformer, task)
    # 1. the schedule, the initial latents and the mask
    schedule = _schedule(task, device)
    initial, mask = prepare(task.inputs, latent_spaces.FLUX, schedule, device, dtype)
    calls = len(schedule.timesteps)
    if not calls:
        return initial.cpu()
    # 2. the denoiser and its guidance
    added = _additional_tokens(task, device, dtype)
    steps = -(-calls // schedule.order)
    denoiser = FluxDenoiser(
        transformer,
        task.guidance,
        count=steps,
        steps=[call // schedule.order for call in range(calls)],
        added=added,
        references=[Reference(r.tokens.to(device, dtype), r.positions) for r in task.references],
        controls=task.controls,
        image_prompts=task.image_prompts,
        scaling=task.scaling,
    )
    scales = guidance_scales(task.inputs.cfg_scale, steps, task.cfg_start, task.cfg_end)
    if task.negative is None and any(scale != 1.0 for scale in scales):
        raise ValueError(
            "a cfg_scale other than 1 needs negative_text_conditioning: connect one, or set cfg_scale to 1 "
            "(`guidance` needs none)"
        )
    positive = task.positive.to(device, dtype)
    negative = None if task.negative is None else task.negative.to(device, dtype)
    truncated = truncate_guidance(scales, steps, task.inputs.guidance_end)
    predict = classifier_free_guidance(denoiser, positive, negative, truncated, sequential=True)
    # 3. the loop
    mixed = added is not None and added.dtype != dtype
    with (
        input_formats(transformer) if mixed else nullcontext(),
        first_block_cache(transformer, _cache_threshold(task)),
        devices.limit_threads(transformer, initial[:, 0].numel() // PACKING**2, device),
    ):
        return check_finite(loop.run(schedule, initial, predict, denoiser.counting(on_step), mask).cpu())


def _cache_threshold(task: FluxDenoiseTask) -> float | None:
    """Return the threshold of the cache, which cannot skip blocks that controls add to or read."""
    if task.cache_threshold is not None and (task.controls or task.image_prompts):
        logger.info("the first-block cache is not used with ControlNets and IP-Adapters")
        return None
    return task.cache_threshold


def _additional_tokens(task: FluxDenoiseTask, device: torch.device, dtype: torch.dtype) -> torch.Tensor | None:
    """Return the tokens that are concatenated to the image's.

    On the CPU those of Fill stay in the VAE's float32, and the transformer computes in it (`input_formats`), as in
    InvokeAI.
    """
    if task.control_image is not None:
        return task.control_image.to(device, dtype)
    if task.added is None:
        return None
    return task.added.to(device, task.added.dtype if device.type == "cpu" else dtype)


def guidance_scales(scale: float | Sequence[float], steps: int, start: int, end: int) -> list[float]:
    """Return the guidance scale of each of `steps` steps: 1 outside `start` to `end`, which may count from the end.

    The last value of a short list applies to the remaining steps. Raises ValueError for an empty list.
    """
    listed = list(scale) if isinstance(scale, Sequence) else [scale]
    if not listed:
        raise ValueError("cfg_scale has no values: give one number, or one per step")
    first, last = (index + steps if index < 0 else index for index in (start, end))
    return [listed[min(step, len(listed) - 1)] if first <= step <= last else 1.0 for step in range(steps)]


def _schedule(task: FluxDenoiseTask, device: torch.device) -> FlowSchedule:
    inputs = task.inputs
    if inputs.steps < 1:
        raise ValueError(f"num_steps must be at least 1, not {inputs.steps}")
    if task.scheduler == "euler":
        levels = flow.even_levels(inputs.steps)
        if task.shifted:
            levels = flow.shift_levels(
                levels, flow.shift_by_tokens(inputs.width * inputs.height // PIXELS_PER_TOKEN_SIDE**2)
            )
        return flow.flow_schedule(flow.clip_levels(levels, inputs.start, inputs.end), device, rounds_length=True)
    levels = flow.clip_levels(flow_solvers.linear_levels(inputs.steps), inputs.start, inputs.end)
    if task.scheduler == "heun":
        return flow_solvers.heun_flow_schedule(levels, device)
    return flow_solvers.consistency_flow_schedule(levels, device, inputs.seed)


def _check_prompts(transformer: Any, task: FluxDenoiseTask) -> None:
    """Raise ValueError for prompts that other text encoders have encoded."""
    config = transformer.config
    for name, side in (("positive", task.positive), ("negative", task.negative)):
        if side is None:
            continue
        kinds = (("T5", side.text, config.joint_attention_dim), ("CLIP", side.pooled, config.pooled_projection_dim))
        for kind, embeds, width in kinds:
            if embeds.shape[-1] != width:
                raise ValueError(
                    f"the {name} prompt was encoded by another {kind} text encoder than this model needs (width "
                    f"{embeds.shape[-1]}, not {width}): select {'T5-XXL' if kind == 'T5' else 'CLIP-L'}"
                )


def _check_channels(transformer: Any, task: FluxDenoiseTask) -> None:
    """Raise ValueError if the transformer needs channels that the task does not add, or the other way round.

    A control LoRA, if there is one, adds the channels of its image.
    """
    needed = transformer.config.in_channels - PACKED_CHANNELS
    added = 0 if task.added is None else task.added.shape[-1]
    if task.control_image is not None and (needed or added):
        raise ValueError(
            "control_lora cannot be combined with FLUX.1 Fill: remove it, or select FLUX.1 dev and remove "
            "fill_conditioning"
        )
    if task.references and (added or task.control_image is not None):
        raise ValueError(
            "reference images cannot be combined with a control LoRA or FLUX.1 Fill: remove kontext_conditioning"
        )
    if needed == added:
        return
    if needed and not added:
        raise ValueError(
            "this is a model for inpainting (FLUX.1 Fill) or with a control image: connect fill_conditioning, or select "
            "another model"
        )
    raise ValueError(
        f"this model takes {needed} additional channels, not {added}: fill_conditioning is for FLUX.1 Fill models"
    )
