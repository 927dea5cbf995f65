"""What is put on a model for the time of one use and taken off again: wrap-around padding, FreeU, another number format, tiles.

Models are shared through the cache, so each of these is a context manager that leaves the model as it was.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from invokeclone.graph.model_fields import FreeUConfig


@contextmanager
def seamless(model: nn.Module, axes: Sequence[str]) -> Iterator[None]:
    """Let convolutions wrap around along `axes` ("x", "y"), so that the picture's edges fit each other."""
    wrapped = [module for module in model.modules() if isinstance(module, nn.Conv2d)] if axes else []
    wrapped = [module for module in wrapped if any(module._reversed_padding_repeated_twice)]  # noqa: SLF001
    before = [module.__dict__.get("_conv_forward") for module in wrapped]
    try:
        for module in wrapped:
            module._conv_forward = _wrapping(module, axes)  # noqa: SLF001
        yield
    finally:
        for module, original in zip(wrapped, before, strict=True):
            if original is None:
                module.__dict__.pop("_conv_forward", None)
            else:
                module._conv_forward = original  # noqa: SLF001


def _wrapping(
    module: nn.Conv2d, axes: Sequence[str]
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]:
    left, right, top, bottom = module._reversed_padding_repeated_twice  # noqa: SLF001
    modes = ["circular" if axis in axes else "constant" for axis in ("x", "y")]

    def forward(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        padded = functional.pad(inputs, (left, right, 0, 0), mode=modes[0])
        padded = functional.pad(padded, (0, 0, top, bottom), mode=modes[1])
        return functional.conv2d(padded, weight, bias, module.stride, 0, module.dilation, module.groups)

    return forward


@contextmanager
def free_u(unet: Any, config: FreeUConfig | None) -> Iterator[None]:
    """Apply FreeU to a diffusers UNet, if there is a configuration."""
    if config is None:
        yield
        return
    unet.enable_freeu(s1=config.s1, s2=config.s2, b1=config.b1, b2=config.b2)
    try:
        yield
    finally:
        unet.disable_freeu()


@contextmanager
def number_format(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Let a model compute in `dtype`; nothing is done when it does so anyway."""
    before = next(model.parameters()).dtype
    if before == dtype:
        yield
        return
    with torch.inference_mode(mode=False):
        model.to(dtype)
    try:
        yield
    finally:
        with torch.inference_mode(mode=False):
            model.to(before)


@contextmanager
def tiles(vae: Any, pixels: int | None) -> Iterator[None]:
    """Let a diffusers autoencoder work in tiles of `pixels` squared (0: its own size), or not at all for None."""
    if pixels is None:
        yield
        return
    names = ("use_tiling", "tile_sample_min_size", "tile_latent_min_size")
    before = {name: getattr(vae, name) for name in names if hasattr(vae, name)}
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    try:
        vae.enable_tiling()
        if pixels:
            vae.tile_sample_min_size = pixels
            vae.tile_latent_min_size = max(pixels // factor, 2)
        yield
    finally:
        for name, value in before.items():
            setattr(vae, name, value)


@contextmanager
def skipped_layers(text_encoder: nn.Module, count: int) -> Iterator[None]:
    """Leave the last `count` layers of a CLIP text encoder out (at least one stays); the final norm stays on."""
    encoder: Any = getattr(text_encoder, "text_model", text_encoder).encoder
    layers = encoder.layers
    if count <= 0:
        yield
        return
    encoder.layers = layers[: max(1, len(layers) - count)]
    try:
        yield
    finally:
        encoder.layers = layers
