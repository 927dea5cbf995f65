"""Nodes of Stable Diffusion: thin; the arithmetic is in `pipeline`, the engine and the components."""
