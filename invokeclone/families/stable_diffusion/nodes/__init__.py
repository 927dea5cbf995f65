"""Nodes of Stable Diffusion. The computation is in `pipeline`, the engine and the components."""
