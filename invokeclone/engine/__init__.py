"""Torch code shared by all model families: devices, model cache, loaders, schedules, denoise loop, guidance, masks."""
