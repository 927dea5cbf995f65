"""Z-Image's pipeline: encode the prompt, prepare, denoise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from invokeclone.components.autoencoders.latent_spaces import Z_IMAGE
from invokeclone.components.text_encoders.qwen3 import chat_text, encode_qwen3
from invokeclone.engine import denoise as loop
from invokeclone.engine import devices
from invokeclone.engine.flow_inputs import FlowInputs, prepare
from invokeclone.engine.guidance import classifier_free_guidance, truncate_guidance
from invokeclone.engine.latents import check_finite
from invokeclone.engine.schedules import flow, flow_solvers
from invokeclone.engine.schedules.flow import FlowSchedule
from invokeclone.families.z_image.conditioning import TOKEN_GRID, ZImageConditioning, ZImageConditioningInfo
from invokeclone.families.z_image.denoiser import ZImageControl, ZImageDenoiser

MAX_TOKENS = 512
PIXELS_PER_TOKEN_SIDE = Z_IMAGE.spatial_factor * Z_IMAGE.packing
_LAYER = -2
"""The hidden state of Qwen3 that the transformer reads."""


def encode(tokenizer: Any, text_encoder: Any, prompt: str, device: torch.device) -> ZImageConditioningInfo:
    """Return Qwen3's last hidden state but one of a chat with the prompt, on the CPU; 512 tokens at most."""
    text = chat_text(prompt, thinking=True)
    (states,) = encode_qwen3(tokenizer, text_encoder, text, [_LAYER], device, tokens=MAX_TOKENS)
    return ZImageConditioningInfo(states).to("cpu")


@dataclass
class ZImageDenoiseTask:
    """The inputs of a denoise run. Tensors may be on any device."""

    inputs: FlowInputs
    positive: ZImageConditioning
    negative: ZImageConditioning | None = None
    scheduler: str = "euler"
    shift: float | None = None
    """Factor by which levels are shifted towards noise; None: by the size of the image."""
    controls: Sequence[ZImageControl] = ()


def schedule_of(task: ZImageDenoiseTask, device: torch.device) -> FlowSchedule:
    """Return a run's schedule, for predictions in float32. Raises ValueError for too many steps."""
    schedule = _solver_of(task, device)
    schedule.keeps_format = True
    return schedule


def _solver_of(task: ZImageDenoiseTask, device: torch.device) -> FlowSchedule:
    inputs = task.inputs
    if task.scheduler != "euler":
        levels = _clip(flow_solvers.linear_levels(inputs.steps), inputs)
        if task.scheduler == "heun":
            return flow_solvers.heun_flow_schedule(levels, device)
        return flow_solvers.consistency_flow_schedule(levels, device, inputs.seed)
    factor = task.shift
    if factor is None:
        factor = flow.shift_by_tokens(inputs.width * inputs.height // PIXELS_PER_TOKEN_SIDE**2)
    return flow.flow_schedule(_clip(flow.shift_levels(flow.even_levels(inputs.steps), factor), inputs), device)


def _clip(levels: list[float], inputs: FlowInputs) -> list[float]:
    """Return the levels of the steps between the fractions `start` and `end`, rounded down."""
    steps = len(levels) - 1
    first = int(inputs.start * steps)
    return levels[first : max(first, int(inputs.end * steps)) + 1]


def denoise(transformer: Any, task: ZImageDenoiseTask, device: torch.device, on_step: loop.OnStep) -> torch.Tensor:
    """Return denoised latents (batch, 16, height / 8, width / 8) on the CPU, in the transformer's number format.

    `on_step` is called for each call of the transformer and may end the run. Raises ValueError for inputs that do not
    fit each other, and for NaN or infinite results.
    """
    dtype = transformer.dtype
    # 1. the schedule, the initial latents and the mask
    for name, side in (("positive", task.positive), ("negative", task.negative)):
        if side is not None:
            _check_prompt(transformer.config, name, side)
    schedule = schedule_of(task, device)
    initial, mask = prepare(task.inputs, Z_IMAGE, schedule, device, dtype)
    calls = len(schedule.timesteps)
    if not calls:
        return initial.cpu()
    # 2. the denoiser and its guidance: prompts differ in length, so each has a call of its own
    steps = [call // schedule.order for call in range(calls)]
    denoiser = ZImageDenoiser(transformer, steps, task.controls)
    positive, negative = (None if side is None else side.to(device, dtype) for side in (task.positive, task.negative))
    assert positive is not None
    scales = truncate_guidance(task.inputs.cfg_scale, steps[-1] + 1, task.inputs.guidance_end)
    predict = classifier_free_guidance(denoiser, positive, negative, scales, sequential=True)
    # 3. the loop
    with devices.limit_threads(transformer, len(initial) * initial.shape[-2] * initial.shape[-1] // 4, device):
        return check_finite(loop.run(schedule, initial, predict, denoiser.counting(on_step), mask).cpu())


def _check_prompt(config: Any, name: str, side: ZImageConditioning) -> None:
    """Raise ValueError for a prompt of another model, and for prompts that are too long together."""
    tokens, width = side.text.shape[1:]
    if width != config.cap_feat_dim:
        raise ValueError(
            f"the {name} prompt was encoded by another Qwen3 model (width {width}, not {config.cap_feat_dim}): "
            "connect the Qwen3 encoder of the transformer's model"
        )
    limit = (config.axes_lens[0] - 2) // TOKEN_GRID * TOKEN_GRID
    if tokens > limit:
        raise ValueError(
            f"the {name} prompts have {tokens} tokens together, more than the {limit} that the model knows: shorten them"
        )
