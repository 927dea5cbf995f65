"""Torch's side of the house: devices, the model cache, loaders, samplers, conditioning and previews; no model family by name."""
