"""Control LoRAs of FLUX.1: the transformer reads the latents of a control image beside those of the result.

Such a LoRA changes biases, replaces the scales of query and key norms, and widens the layer of the image tokens.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from invokeclone.engine.lora.apply import apply_loras, widen_input
from invokeclone.engine.lora.matching import Layers, LoRAPatch
from invokeclone.engine.lora.stacks import StackedChange

_INPUT = "x_embedder"
PART = "transformer"
"""The part of LoRA files that is for the transformer."""


@contextmanager
def apply_control_lora(
    transformer: Any, name: str, parts: Mapping[str, Layers], weight: float, device: torch.device
) -> Iterator[None]:
    """Apply a control LoRA inside the block; other LoRAs are applied before it.

    The transformer takes twice as many channels: latents, then the control image. Raises ValueError for a LoRA without
    a layer for the image, or of another model.
    """
    layers = dict(parts.get(PART, {}))
    change = layers.pop(_INPUT, None)
    if change is None or isinstance(change, StackedChange):
        raise ValueError(f"{name} is not a control LoRA of FLUX.1: it has no layer for the control image (img_in)")
    layer = transformer.x_embedder
    channels = 2 * layer.in_features
    if not change.fits(torch.Size((layer.out_features, channels))):
        raise ValueError(
            f"the control LoRA {name} does not fit this model, whose layer for images has {layer.out_features} outputs "
            f"and {channels} inputs with the control image: select the FLUX.1 dev model that it was made for"
        )
    with (
        widen_input(layer, change, weight, channels, device),
        apply_loras(transformer, [LoRAPatch(name, layers, weight)], device),
    ):
        yield
