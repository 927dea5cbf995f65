"""Nodes of Stable Diffusion 1 and of what shares its architecture: thin; the arithmetic is in `pipe` and in the engine."""

from invokeclone.families.sd1.nodes import autoencoder, denoise, latents, masks, models, prompts

__all__ = ["autoencoder", "denoise", "latents", "masks", "models", "prompts"]
