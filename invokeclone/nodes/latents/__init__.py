"""Noise, and latents resized, cut and blended, for every family."""
