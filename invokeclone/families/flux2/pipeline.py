"""FLUX.2's pipeline: encode the prompt, prepare, denoise."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from invokeclone.components.autoencoders import latent_spaces
from invokeclone.components.autoencoders.kl_flux2 import LatentStatistics
from invokeclone.components.flux.regions import PromptRegion, attention_mask
from invokeclone.components.flux.tokens import PACKING, pack, unpack
from invokeclone.components.text_encoders.mistral import encode_mistral, instruction_text
from invokeclone.components.text_encoders.qwen3 import chat_text, encode_qwen3
from invokeclone.engine import denoise as loop
from invokeclone.engine import devices
from invokeclone.engine.flow_inputs import FlowInputs, prepare
from invokeclone.engine.guidance import classifier_free_guidance, truncate_guidance
from invokeclone.engine.latents import check_finite
from invokeclone.engine.schedules import flow, flow_solvers
from invokeclone.engine.schedules.flow import FlowSchedule
from invokeclone.families.flux2.conditioning import Flux2ConditioningInfo, Flux2Prompt

PIXELS_PER_TOKEN_SIDE = latent_spaces.FLUX_2.spatial_factor * PACKING
KLEIN_LAYERS = (9, 18, 27)
"""Hidden states of Qwen3 that are the prompt of klein models."""
_SHIFT = math.exp(2.02)
_HEUN_SHIFT = 3.0
_TIME_SCALE = 1000.0

Predict = Callable[[torch.Tensor, torch.Tensor, Flux2Prompt], torch.Tensor]


@dataclass
class References:
    """Tokens (1, tokens, channels) of reference images, with their positions (tokens, 4)."""

    tokens: torch.Tensor
    positions: torch.Tensor


@dataclass
class Flux2Task:
    """The inputs of a denoise run. Tensors may be on any device; latents are those of the autoencoder."""

    inputs: FlowInputs
    positive: Flux2Prompt
    negative: Flux2Prompt | None
    statistics: LatentStatistics
    scheduler: str = "euler"
    guidance: float = 4.0
    """An input of dev models; klein models have none."""
    references: References | None = None


def encode_klein(
    tokenizer: Any, text_encoder: Any, prompt: str, tokens: int, device: torch.device
) -> Flux2ConditioningInfo:
    """Return the embeddings of a prompt for klein models, on the CPU: hidden states of Qwen3, one beside the other."""
    text = chat_text(prompt, thinking=False)
    states = encode_qwen3(tokenizer, text_encoder, text, KLEIN_LAYERS, device, tokens=tokens, padded=True)
    return Flux2ConditioningInfo(torch.cat(states, dim=-1).cpu())


def encode_dev(
    tokenizer: Any, text_encoder: Any, prompt: str, tokens: int, device: torch.device
) -> Flux2ConditioningInfo:
    """Return the embeddings of a prompt for dev models, on the CPU: hidden states of Mistral, one beside the other."""
    from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE

    text = instruction_text(SYSTEM_MESSAGE, prompt)
    states = encode_mistral(tokenizer, text_encoder, text, device, tokens=tokens)
    return Flux2ConditioningInfo(torch.cat(states, dim=-1).cpu())


def join_prompts(regions: Sequence[PromptRegion], width: int, height: int, *, masked: bool) -> Flux2Prompt:
    """Return one side of the guidance for an image of this size in pixels; regions act only if `masked`."""
    text = torch.cat([region.embeds for region in regions], dim=1)
    side = PIXELS_PER_TOKEN_SIDE
    return Flux2Prompt(text, attention_mask(regions, height // side, width // side) if masked else None)


def denoise(transformer: Any, task: Flux2Task, device: torch.device, on_step: loop.OnStep) -> torch.Tensor:
    """Return denoised latents (batch, 32, height, width) of the autoencoder, in float32 on the CPU.

    `on_step` is called for each call of the transformer and may end the run. Raises ValueError for inputs that do not
    fit each other, and for NaN or infinite results.
    """
    dtype = transformer.dtype
    _check(transformer, task)
    # 1. the schedule, the initial latents and the mask; noise has the scale of normalized latents
    schedule = make_schedule(task.inputs, task.scheduler, device)
    initial, mask = prepare(task.inputs, latent_spaces.FLUX_2, schedule, device, dtype, task.statistics.normalize)
    if not len(schedule.timesteps):
        return task.statistics.denormalize(initial).cpu()
    # 2. the denoiser and its guidance
    positive = task.positive.to(device, dtype)
    negative = None if task.negative is None else task.negative.to(device, dtype)
    scales = truncate_guidance(
        task.inputs.cfg_scale, -(-len(schedule.timesteps) // schedule.order), task.inputs.guidance_end
    )
    predict = classifier_free_guidance(
        _denoiser(transformer, task, device), positive, negative, scales, sequential=True
    )
    # 3. the loop
    with devices.limit_threads(transformer, initial[:, 0].numel() // PACKING**2, device):
        result = check_finite(loop.run(schedule, initial, predict, on_step, mask))
    return task.statistics.denormalize(result).cpu()


def _denoiser(transformer: Any, task: Flux2Task, device: torch.device) -> Predict:
    """Return a function of latents, time and prompt that predicts the velocity with a Flux2Transformer2DModel."""
    references = task.references

    def predict(latents: torch.Tensor, timestep: torch.Tensor, prompt: Flux2Prompt) -> torch.Tensor:
        batch, _, height, width = latents.shape
        tokens = pack(latents)
        positions = image_positions(height // PACKING, width // PACKING).to(device)
        inputs = tokens
        if references is not None:
            inputs = torch.cat([tokens, references.tokens.to(tokens).expand(batch, -1, -1)], dim=1)
            positions = torch.cat([positions, references.positions.to(device)])
        guidance = None
        if transformer.config.guidance_embeds:
            guidance = torch.full((batch,), task.guidance, dtype=latents.dtype, device=device)
        mask = prompt.attention_mask if references is None else None
        output = transformer(
            hidden_states=inputs,
            encoder_hidden_states=prompt.text.expand(batch, -1, -1),
            timestep=(timestep / _TIME_SCALE).to(latents.dtype).expand(batch),
            img_ids=positions,
            txt_ids=text_positions(prompt.text.shape[1]).to(device),
            guidance=guidance,
            joint_attention_kwargs=None if mask is None else {"attention_mask": mask},
            return_dict=False,
        )[0]
        return unpack(output[:, : tokens.shape[1]], height, width)

    return predict


def image_positions(rows: int, columns: int, index: int = 0, offset: tuple[int, int] = (0, 0)) -> torch.Tensor:
    """Return the positions (rows · columns, 4) of an image's tokens: `index` of the image, row, column, 0.

    The first token has row and column `offset`.
    """
    grid = torch.zeros(rows, columns, 4, dtype=torch.long)
    grid[..., 0] = index
    grid[..., 1] = torch.arange(rows)[:, None] + offset[0]
    grid[..., 2] = torch.arange(columns)[None, :] + offset[1]
    return grid.reshape(-1, 4)


def text_positions(tokens: int) -> torch.Tensor:
    """Return the positions (tokens, 4) of a text's tokens: 0, 0, 0, number."""
    positions = torch.zeros(tokens, 4, dtype=torch.long)
    positions[:, 3] = torch.arange(tokens)
    return positions


def make_schedule(inputs: FlowInputs, scheduler: str, device: torch.device) -> FlowSchedule:
    """Return the schedule of a run, whose shift does not depend on the image's size.

    A run of Euler's method that starts later has the full number of steps, unlike those of other solvers. As in InvokeAI,
    the lengths of its steps are rounded only if it begins with noise alone.
    """
    if inputs.steps < 1:
        raise ValueError(f"num_steps must be at least 1, not {inputs.steps}")
    if scheduler == "heun":
        levels = flow_solvers.linear_levels(inputs.steps, _HEUN_SHIFT)
        return flow_solvers.heun_flow_schedule(flow.clip_levels(levels, inputs.start, inputs.end), device)
    levels = flow.shift_levels(flow.even_levels(inputs.steps), _SHIFT)
    levels = flow.clip_levels(levels, inputs.start, inputs.end)
    if scheduler == "lcm":
        return flow_solvers.consistency_flow_schedule(levels, device, inputs.seed)
    if inputs.start > 0 and len(levels) > 1:
        levels = flow.refill_levels(levels, inputs.steps, _SHIFT)
    return flow.flow_schedule(levels, device, rounds_length=inputs.latents is None)


def _check(transformer: Any, task: Flux2Task) -> None:
    """Raise ValueError for prompts of another model, and for guidance without a negative prompt."""
    width = transformer.config.joint_attention_dim
    for name, prompt in (("positive", task.positive), ("negative", task.negative)):
        if prompt is not None and prompt.text.shape[-1] != width:
            raise ValueError(
                f"the {name} prompt was encoded by a text encoder of another size (width {prompt.text.shape[-1]}, not "
                f"{width}): connect the encoder of the transformer's model: Qwen3 4B for klein 4B, 8B for klein 9B, Mistral for "
                "dev"
            )
    if task.negative is None and task.inputs.cfg_scale != 1.0:
        raise ValueError(
            "a cfg_scale other than 1 needs negative_text_conditioning: connect one, or set cfg_scale to 1"
        )
