"""Nodes that create noise, and resize, crop and blend latents, for all families."""
