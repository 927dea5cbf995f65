"""Stable Diffusion 2."""
