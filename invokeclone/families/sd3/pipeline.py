"""Stable Diffusion 3's pipeline: encode the prompt, prepare, denoise. Images are encoded and decoded without the VAE's shift."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from invokeclone.components.autoencoders.latent_spaces import STABLE_DIFFUSION_3
from invokeclone.engine import denoise as loop
from invokeclone.engine import devices
from invokeclone.engine.conditioning import ConditioningTensors
from invokeclone.engine.flow_inputs import FlowInputs, prepare
from invokeclone.engine.guidance import classifier_free_guidance, truncate_guidance
from invokeclone.engine.latents import check_finite
from invokeclone.engine.schedules.flow import clip_levels, even_levels, flow_schedule
from invokeclone.families.sd3.conditioning import SD3ConditioningInfo

T5_TOKENS = 256


@dataclass
class SD3Prompt(ConditioningTensors):
    """What the transformer receives: embeddings (batch, tokens, width) and pooled embeddings (batch, width)."""

    embeds: torch.Tensor
    pooled: torch.Tensor


def encode_clip(
    tokenizer: Any, text_encoder: Any, prompt: str, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a prompt's pooled embeddings (1, width) and embeddings (1, 77, width) of one CLIP encoder, on the CPU.

    The embeddings are the last hidden state but one. Long prompts are truncated. Raises ValueError for an encoder
    without projection, whose pooled embeddings are of another kind.
    """
    if not hasattr(text_encoder, "text_projection"):
        raise ValueError(
            "this CLIP text encoder has no projection, which Stable Diffusion 3 needs: leave clip_l_model and "
            "clip_g_model of the model loader empty, or select encoders saved as CLIPTextModelWithProjection"
        )
    with torch.inference_mode():
        length = tokenizer.model_max_length
        tokens = tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        output = text_encoder(tokens["input_ids"].to(device), output_hidden_states=True)
        return output.text_embeds.cpu(), output.hidden_states[-2].cpu()


def denoise(
    transformer: Any,
    positive: SD3ConditioningInfo,
    negative: SD3ConditioningInfo,
    inputs: FlowInputs,
    device: torch.device,
    on_step: loop.OnStep,
) -> torch.Tensor:
    """Return denoised latents (batch, 16, height / 8, width / 8) on the CPU, in the transformer's number format.

    `on_step` is called for each step and may end the run. Raises ValueError for inputs that do not fit.
    """
    # 1. the schedule, which is not shifted, the initial latents, the mask
    _check_size(transformer.config, inputs)
    schedule = flow_schedule(clip_levels(even_levels(inputs.steps), inputs.start, inputs.end), device)
    initial, mask = prepare(inputs, STABLE_DIFFUSION_3, schedule, device, transformer.dtype)

    # 2. the denoiser
    def predict(latents: torch.Tensor, timestep: torch.Tensor, prompt: SD3Prompt) -> torch.Tensor:
        velocity: torch.Tensor = transformer(
            hidden_states=latents,
            encoder_hidden_states=prompt.embeds,
            pooled_projections=prompt.pooled,
            timestep=timestep.expand(len(latents)),
            return_dict=False,
        )[0]
        return velocity

    # 3. guidance: one call for both prompts, if it is not sequential
    sides = [
        join(side, transformer.config, name, len(initial)).to(device, transformer.dtype)
        for side, name in ((positive, "positive"), (negative, "negative"))
    ]
    scales = truncate_guidance(inputs.cfg_scale, len(schedule.timesteps), inputs.guidance_end)
    guided = classifier_free_guidance(predict, sides[0], sides[1], scales, sequential=inputs.sequential)
    # 4. the loop
    with devices.limit_threads(transformer, len(initial) * initial.shape[-2] * initial.shape[-1] // 4, device):
        return check_finite(loop.run(schedule, initial, guided, on_step, mask).cpu())


def join(info: SD3ConditioningInfo, config: Any, name: str, rows: int = 1) -> SD3Prompt:
    """Return the transformer's prompt, `rows` times.

    The two CLIP encoders are joined along the width, padded with zeros to T5's width, and followed by T5's tokens,
    or zeros without T5. Raises ValueError for encoders of other sizes than the transformer was trained with.
    """
    pooled = torch.cat([info.clip_l_pooled_embeds, info.clip_g_pooled_embeds], dim=-1)
    clip = torch.cat([info.clip_l_embeds, info.clip_g_embeds], dim=-1)
    width = config.joint_attention_dim
    if pooled.shape[-1] != config.pooled_projection_dim or clip.shape[-1] > width:
        raise ValueError(
            f"the {name} prompt was encoded by CLIP encoders of other sizes (together {pooled.shape[-1]} wide, not "
            f"{config.pooled_projection_dim}): connect CLIP-L and CLIP-G of the transformer's model, in this order"
        )
    t5 = info.t5_embeds
    if t5 is None:
        t5 = clip.new_zeros((len(clip), T5_TOKENS, width))
    elif t5.shape[-1] != width:
        raise ValueError(
            f"the {name} prompt was encoded by a T5 encoder of another size (width {t5.shape[-1]}, not {width}): "
            "connect the T5 encoder of the transformer's model, or T5-XXL"
        )
    embeds = torch.cat([functional.pad(clip, (0, width - clip.shape[-1])), t5.to(clip)], dim=1)
    return SD3Prompt(embeds.expand(rows, -1, -1), pooled.expand(rows, -1))


def _check_size(config: Any, inputs: FlowInputs) -> None:
    """Raise ValueError for an image larger than the transformer's position embedding."""
    largest = config.pos_embed_max_size * config.patch_size * STABLE_DIFFUSION_3.spatial_factor
    if max(inputs.width, inputs.height) > largest:
        raise ValueError(
            f"this model's images have sides of at most {largest} pixels, not {inputs.width} x {inputs.height}"
        )
