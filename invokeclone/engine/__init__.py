"""Torch without any model family: devices, model cache, loaders, schedules, the denoise loop, guidance, masks, previews."""
