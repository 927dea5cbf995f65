"""The family's own mathematics: encode the prompt, prepare, predict."""

from dataclasses import dataclass
from typing import Any

import torch

from invokeclone.engine import denoise, latents
from invokeclone.engine.conditioning import ConditioningTensors
from invokeclone.engine.guidance import classifier_free_guidance
from invokeclone.engine.masks import change_mask
from invokeclone.engine.schedules.flow import clip_levels, even_levels, flow_schedule, shift_levels

SHIFT = 3.0


@dataclass
class TinyFlowConditioning(ConditioningTensors):
    """`embeds` (batch, tokens, width) and `pooled` (batch, width)."""

    embeds: torch.Tensor
    pooled: torch.Tensor


def encode(tokenizer: Any, text_encoder: Any, prompt: str, device: torch.device) -> TinyFlowConditioning:
    with torch.inference_mode():
        tokens = tokenizer(prompt, padding="max_length", truncation=True, return_tensors="pt")["input_ids"].to(device)
        output = text_encoder(tokens)
        return TinyFlowConditioning(output.last_hidden_state, output.text_embeds).to("cpu")


def run(
    transformer: Any,
    conditionings: tuple[TinyFlowConditioning, TinyFlowConditioning],
    shape: tuple[int, ...],
    seed: int,
    device: torch.device,
    on_step: denoise.OnStep,
    *,
    steps: int,
    scale: float,
    start: float = 0.0,
    original: torch.Tensor | None = None,
    keep: torch.Tensor | None = None,
) -> torch.Tensor:
    # 1. the schedule, and what it begins with
    schedule = flow_schedule(clip_levels(shift_levels(even_levels(steps), SHIFT), start, 1.0), device)
    noise = latents.noise(seed, shape, torch.device("cpu")).to(device)
    begun = schedule.start(original, noise)
    mask = None
    if keep is not None and original is not None:
        mask = schedule.mask(change_mask(keep, begun), original, noise, gradient=True)

    # 2. the denoiser
    def predict(inputs: torch.Tensor, timestep: torch.Tensor, text: TinyFlowConditioning) -> torch.Tensor:
        return transformer(inputs, text.embeds, text.pooled, timestep.expand(len(inputs)), return_dict=False)[0]

    # 3. the loop
    positive, negative = (conditioning.to(device, transformer.dtype) for conditioning in conditionings)
    guided = classifier_free_guidance(predict, positive, negative, scale)
    return denoise.run(schedule, begun, guided, on_step, mask).cpu()
