"""Random changes of Z-Image's prompts, for images that differ more from seed to seed."""

import torch

_SEEDS = 2**64


def vary(embeds: torch.Tensor, seed: int, strength: float, share: float) -> torch.Tensor:
    """Return prompt embeddings with noise added to a random `share` (0..1) of the values.

    The noise is even between -`strength` and `strength` standard deviations of all values, drawn on the CPU.
    """
    if not strength or not share:
        return embeds
    generator = torch.Generator("cpu").manual_seed(seed % _SEEDS)
    noise = torch.rand(embeds.shape, generator=generator, dtype=embeds.dtype) * 2.0 - 1.0
    generator.manual_seed((seed + 1) % _SEEDS)
    selection = torch.bernoulli(torch.full_like(embeds, share), generator=generator)
    return embeds + noise * (strength * float(embeds.std())) * selection
