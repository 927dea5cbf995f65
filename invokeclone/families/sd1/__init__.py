"""Stable Diffusion 1: latent diffusion at 512² with a UNet of cross-attention width 768, and the embedded tiny model."""
