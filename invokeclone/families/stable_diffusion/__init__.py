"""Stable Diffusion 1, 2 and XL, which share nodes, the UNet and its adapters."""
