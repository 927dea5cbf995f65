"""CogView4's pipeline: encode the prompt, prepare, denoise. Images are encoded and decoded without the VAE's shift."""

import math
from typing import Any

import torch

from invokeclone.components.autoencoders.latent_spaces import COGVIEW4
from invokeclone.engine import denoise as loop
from invokeclone.engine import devices
from invokeclone.engine.block_cache import guidance_side
from invokeclone.engine.flow_inputs import FlowInputs, prepare
from invokeclone.engine.guidance import classifier_free_guidance, truncate_guidance
from invokeclone.engine.latents import check_finite
from invokeclone.engine.schedules.flow import FlowSchedule, clip_levels, even_levels, flow_schedule, shift_levels
from invokeclone.families.cogview4.conditioning import CogView4ConditioningInfo
from invokeclone.kit import log

logger = log.get("families.cogview4")
MAX_TOKENS = 1024
_TOKEN_GRID = 16
"""The number of tokens is padded to a multiple of this."""
_SHIFT = (0.25, 0.75)
_SHIFT_TOKENS = 256


def encode(tokenizer: Any, text_encoder: Any, prompt: str, device: torch.device) -> CogView4ConditioningInfo:
    """Return GLM's embeddings of a prompt (1, a multiple of 16 tokens, width) on the CPU; no prompt language.

    They are the last hidden state but one. Padding is on the left and not masked; 1024 tokens at most.
    """
    with torch.inference_mode():
        tokens = tokenizer(prompt, verbose=False)["input_ids"]
        if len(tokens) > MAX_TOKENS:
            logger.warning("the prompt is longer than %s tokens: its end is not used", MAX_TOKENS)
            tokens = tokenizer(prompt, truncation=True, max_length=MAX_TOKENS)["input_ids"]
        tokens = [tokenizer.pad_token_id] * (-len(tokens) % _TOKEN_GRID) + tokens
        output = text_encoder(torch.tensor([tokens], device=device), output_hidden_states=True)
        return CogView4ConditioningInfo(output.hidden_states[-2]).to("cpu")


def schedule_of(inputs: FlowInputs, device: torch.device) -> FlowSchedule:
    """Return a run's schedule.

    Levels are shifted by the size of the image, after they are clipped to the part of the run; the network
    receives the unshifted times. Raises ValueError for sides off the grid and too many steps.
    """
    rows, columns = COGVIEW4.noise_shape(inputs.width, inputs.height)[-2:]
    times = clip_levels(even_levels(inputs.steps), inputs.start, inputs.end)
    factor = _SHIFT[0] + _SHIFT[1] * math.sqrt(rows * columns / COGVIEW4.packing**2 / _SHIFT_TOKENS)
    return flow_schedule(shift_levels(times, factor), device, times)


def denoise(
    transformer: Any,
    positive: CogView4ConditioningInfo,
    negative: CogView4ConditioningInfo,
    inputs: FlowInputs,
    device: torch.device,
    on_step: loop.OnStep,
) -> torch.Tensor:
    """Return denoised latents (batch, 16, height / 8, width / 8) on the CPU, in the transformer's number format.

    `on_step` is called for each step and may end the run. Raises ValueError for inputs that do not fit.
    """
    # 1. the schedule, the initial latents, the mask
    schedule = schedule_of(inputs, device)
    initial, mask = prepare(inputs, COGVIEW4, schedule, device, transformer.dtype)
    # 2. the denoiser: the image's size is a part of the conditioning, its crop is always at the corner
    for name, side in (("positive", positive), ("negative", negative)):
        _check_width(transformer, name, side)
    size = torch.tensor([[inputs.height, inputs.width]], dtype=transformer.dtype, device=device)

    def predict(latents: torch.Tensor, timestep: torch.Tensor, text: CogView4ConditioningInfo) -> torch.Tensor:
        rows = len(latents)
        sizes = size.expand(rows, -1)
        with guidance_side(transformer, positive=text is sides[0]):
            velocity: torch.Tensor = transformer(
                hidden_states=latents,
                encoder_hidden_states=text.glm_embeds.expand(rows, -1, -1),
                timestep=timestep.expand(rows),
                original_size=sizes,
                target_size=sizes,
                crop_coords=torch.zeros_like(sizes),
                return_dict=False,
            )[0]
        return velocity

    # 3. guidance: prompts differ in length, so each has a call of its own
    sides = [side.to(device, transformer.dtype) for side in (positive, negative)]
    scales = truncate_guidance(inputs.cfg_scale, len(schedule.timesteps), inputs.guidance_end)
    guided = classifier_free_guidance(predict, sides[0], sides[1], scales, sequential=True)
    # 4. the loop
    with devices.limit_threads(transformer, len(initial) * initial.shape[-2] * initial.shape[-1] // 4, device):
        return check_finite(loop.run(schedule, initial, guided, on_step, mask).cpu())


def _check_width(transformer: Any, name: str, text: CogView4ConditioningInfo) -> None:
    """Raise ValueError for a prompt of another model."""
    width, expected = text.glm_embeds.shape[-1], transformer.config.text_embed_dim
    if width != expected:
        raise ValueError(
            f"the {name} prompt was encoded by another model's GLM (width {width}, not {expected}): "
            "connect the GLM encoder of the transformer's model"
        )
