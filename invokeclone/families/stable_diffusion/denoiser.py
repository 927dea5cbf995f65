"""The UNet as a denoiser: from latents, time and encoded prompts to its prediction."""

from dataclasses import dataclass
from typing import Any

import torch

from invokeclone.families.stable_diffusion.attention import RegionalAttention
from invokeclone.families.stable_diffusion.conditioning import TextConditioning


@dataclass
class UNetDenoiser:
    """Predicts with a diffusers UNet; latents and conditioning are on its device and in its number format."""

    unet: Any
    extra: torch.Tensor | None = None
    """(batch or 1, channels, height, width) beside the latents, for inpainting models."""
    attention: RegionalAttention | None = None

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: TextConditioning) -> torch.Tensor:
        """Return the prediction, shaped as the latents."""
        inputs = latents
        if self.extra is not None:
            repeats = len(latents) // len(self.extra)  # with guidance the latents are there twice
            inputs = torch.cat([latents, self.extra.repeat(repeats, 1, 1, 1)], dim=1)
        mask = conditioning.token_mask()
        if self.attention is not None:
            self.attention.conditioning = conditioning
            mask = None if conditioning.is_regional else mask
        prediction: torch.Tensor = self.unet(
            inputs, timestep, encoder_hidden_states=conditioning.embeds, encoder_attention_mask=mask, return_dict=False
        )[0]
        return prediction
