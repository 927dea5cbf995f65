"""Optional ways to run a denoising network, by the settings: attention, reused attention, compiled blocks.

With the default settings nothing is changed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from invokeclone.engine.attention import attention_of
from invokeclone.engine.attention_broadcast import attention_broadcast
from invokeclone.engine.compilation import compile_blocks
from invokeclone.engine.devices import DeviceMemory
from invokeclone.kit.config.settings import Settings


@contextmanager
def apply_optimizations(
    network: nn.Module, settings: Settings, device: torch.device, *, reuses_attention: bool = True
) -> Iterator[None]:
    """Apply the settings to a network on `device` inside the block; use it for one run, after LoRAs are applied.

    Without `reuses_attention`, as for runs that read or change attention in each step, `pyramid_attention_broadcast` is
    not used.
    """
    interval = settings.pyramid_attention_broadcast if reuses_attention else None
    with (
        attention_of(settings, DeviceMemory(device)),
        attention_broadcast(network, interval),
        compile_blocks(network, enabled=settings.torch_compile),
    ):
        yield
