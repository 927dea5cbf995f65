"""HiDiffusion: images larger than the UNet's training size (arXiv 2311.17528), for Stable Diffusion 1, 2 and XL.

In the first steps some feature maps are downsampled further than in the original UNet (the paper's resolution-aware
UNet), so that its receptive field covers the whole image; and some self-attention is computed in four windows that
shift between calls.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional

from invokeclone.engine.loading.files import read_json
from invokeclone.families.stable_diffusion.denoiser import UNetCall
from invokeclone.families.stable_diffusion.single_files import CONFIGS

TURBO = "stabilityai/sdxl-turbo"
"""The model with its own thresholds."""
_BASES = {"sd1": "Stable Diffusion 1.5", "sdxl": "Stable Diffusion XL"}
_STRUCTURE = ("down_block_types", "up_block_types", "layers_per_block", "transformer_layers_per_block")
"""The settings that determine the names of a UNet's modules."""
_QUARTER = 0.25
_LARGE = 512
"""Side in latents from which SDXL uses other thresholds."""
_AGGRESSIVE = 8, 50
"""Share of the steps in which small latents use the other downsampling."""

Size = tuple[int, int]


@dataclass(frozen=True)
class HiDiffusion:
    """HiDiffusion's settings of a run."""

    raunet: bool = True
    """Whether to use the resolution-aware UNet."""
    windows: bool = True
    """Whether to use windowed self-attention."""
    t1: float = 0.4
    """Share of the steps before the first threshold."""
    t2: float = 0.0
    """Share of the steps before the second threshold."""
    source: str = ""
    """Source of the model."""


@dataclass(frozen=True)
class _Kind:
    """The modules that are patched in one kind of UNet."""

    convolution: int
    """Index of the down block whose downsampler reduces its input to a quarter instead of a half."""
    pool: int
    """Index of the down block that is pooled after its first layer."""
    unpool: int
    """Index of the up block that is upsampled after its second layer."""
    windows: tuple[str, ...]
    """Names of the self-attention modules with windows."""


_KINDS = {
    "sd1": _Kind(
        convolution=0,
        pool=1,
        unpool=2,
        windows=tuple(
            f"{block}.attentions.{layer}.transformer_blocks.0.attn1"
            for block, layers in (("down_blocks.0", 2), ("up_blocks.3", 3))
            for layer in range(layers)
        ),
    ),
    "sdxl": _Kind(
        convolution=1,
        pool=1,
        unpool=1,
        windows=tuple(
            f"{block}.attentions.{layer}.transformer_blocks.{number}.attn1"
            for block, layers in (("down_blocks.1", 2), ("up_blocks.1", 3))
            for layer in range(layers)
            for number in range(2)
        ),
    ),
}


def _structure(config: Any) -> dict[str, list[Any]]:
    blocks = len(config["down_block_types"])
    values = {name: config.get(name, 1) for name in _STRUCTURE}
    return {n: list(v) if isinstance(v, list | tuple) else [v] * blocks for n, v in values.items()}


@lru_cache
def _load_structure(base: str) -> dict[str, list[Any]]:
    return _structure(read_json(CONFIGS / base / "unet" / "config.json"))


def _kind_of(unet: Any) -> str:
    """Return the key of the UNet's kind. Raises ValueError for other architectures."""
    structure = _structure(unet.config)
    for base in _KINDS:
        if structure == _load_structure(base):
            return base
    names = " and ".join(_BASES.values())
    raise ValueError(f"HiDiffusion only supports the UNets of {names}: turn it off for this model")


class HiDiffusionState:
    """State of one run. As a Control it must come after all others, whose feature maps it resizes."""

    def __init__(self, unet: Any, settings: HiDiffusion, seed: int) -> None:
        """Create the state for one UNet. Raises ValueError for other architectures than SD 1.5 and XL."""
        self.base = _kind_of(unet)
        self.kind = _KINDS[self.base]
        self.settings = settings
        self.unet = unet
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._size: Size = (0, 0)
        self._index, self._count = 0, 1
        self._before_pool: Size = (0, 0)

    def __call__(self, call: UNetCall) -> None:
        """Set the call's index, and resize the residuals and features of the controls."""
        self._size = (call.latents.shape[-2], call.latents.shape[-1])
        self._index, self._count = call.index, call.count
        if not self.settings.raunet:
            return
        skips, blocks = self._sizes()
        if call.down is not None and call.mid is not None:
            call.down = tuple(_resize(value, size) for value, size in zip(call.down, skips, strict=True))
            call.mid = _resize(call.mid, skips[-1])
        if call.features is not None:
            call.features = tuple(_resize(value, size) for value, size in zip(call.features, blocks, strict=False))

    def _sizes(self) -> tuple[list[Size], list[Size]]:
        """Return the sizes of the skip connections, and of the features added in each down block."""
        size, skips, blocks = self._size, [self._size], []
        for number, block in enumerate(self.unet.down_blocks):
            for layer in range(len(block.resnets)):
                if (number, layer) == (self.kind.pool, 0) and self.pools:
                    size = _ceil_divide(size, 2)
                skips.append(size)
            inside = size
            if block.downsamplers:
                quartered = number == self.kind.convolution and self.quarters
                size = _ceil_divide(size, 4 if quartered else 2)
                skips.append(size)
            blocks.append(inside if getattr(block, "has_cross_attention", False) else size)
        return skips, blocks

    def _is_before(self, share: float) -> bool:
        return self._index < int(self._count * share)

    @property
    def quarters(self) -> bool:
        """Whether the convolution reduces its input to a quarter in this call."""
        first, second = self.settings.t1, self.settings.t2
        if self.base == "sd1":
            return self._is_before(first)
        if self.settings.source == TURBO:
            return False
        return self._index < self._aggressive if self._is_small else self._is_before(second)

    @property
    def pools(self) -> bool:
        """Whether the block is pooled in this call."""
        first, second = self.settings.t1, self.settings.t2
        if self.base == "sd1":
            return self._is_before(second)
        if self._is_small and self.settings.source != TURBO and self._index < self._aggressive:
            return False
        return self._is_before(first)

    @property
    def _is_small(self) -> bool:
        return min(self._size) < _LARGE

    @property
    def _aggressive(self) -> int:
        calls, total = _AGGRESSIVE
        return int(calls * self._count / total)

    def pool(self, _module: Any, _inputs: Any, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Return a down block's first feature map, pooled to half its size."""
        (features,) = output
        self._before_pool = (features.shape[-2], features.shape[-1])
        return (functional.avg_pool2d(features, 2, ceil_mode=True),) if self.pools else output

    def unpool(self, _module: Any, _inputs: Any, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Return an up block's second feature map at the size before pooling."""
        return (_resize(output[0], self._before_pool),) if self.pools else output

    def shift(self) -> int:
        """Return the shift of the next attention's windows in quarters of a window."""
        drawn = float(torch.rand(1, generator=self._generator))
        return min(3, max(0, math.ceil(drawn / _QUARTER) - 1))

    def grid(self, locations: int) -> Size:
        """Return height and width of the feature map with this many locations."""
        ratio = round(math.sqrt(self._size[0] * self._size[1] / locations))
        return _ceil_divide(self._size, max(1, ratio))


def _ceil_divide(size: Size, by: int) -> Size:
    return -(-size[0] // by), -(-size[1] // by)


def _resize(features: torch.Tensor, size: Size) -> torch.Tensor:
    """Return a feature map (batch, channels, height, width) resized to `size`."""
    if (features.shape[-2], features.shape[-1]) == size:
        return features
    return functional.interpolate(features, size=size, mode="bicubic")


class _Windows:
    """Four windows of a feature map (batch, locations, channels) for one attention call."""

    def __init__(self, state: HiDiffusionState, features: torch.Tensor) -> None:
        self._grid = state.grid(features.shape[1])
        self._window = _ceil_divide(self._grid, 2)
        quarters = state.shift()
        self._shift = tuple(quarters * (side // 4) for side in self._window)

    def split(self, features: torch.Tensor) -> torch.Tensor:
        """Return the windows stacked along the batch."""
        (rows, columns), channels = self._window, features.shape[-1]
        image = _resize(features.transpose(1, 2).unflatten(2, self._grid), (2 * rows, 2 * columns)).movedim(1, -1)
        if self._shift[0] > 0:
            image = image.roll((-self._shift[0], -self._shift[1]), (1, 2))
        windows = image.reshape(-1, 2, rows, 2, columns, channels).transpose(2, 3)
        return windows.reshape(-1, rows * columns, channels)

    def join(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the feature map reassembled from its windows."""
        (rows, columns), channels = self._window, windows.shape[-1]
        image = windows.reshape(-1, 2, 2, rows, columns, channels).transpose(2, 3)
        image = image.reshape(-1, 2 * rows, 2 * columns, channels)
        if self._shift[0] > 0:
            image = image.roll(self._shift, (1, 2))
        return _resize(image.movedim(-1, 1), self._grid).flatten(2).transpose(1, 2)


@contextmanager
def hidiffusion(unet: Any, state: HiDiffusionState | None) -> Iterator[None]:
    """Patch a UNet with HiDiffusion inside the block, if `state` is given."""
    with ExitStack() as stack:
        if state is not None and state.settings.raunet:
            _patch_sizes(stack, unet, state)
        if state is not None and state.settings.windows:
            for name in state.kind.windows:
                _patch_attention(stack, unet.get_submodule(name), state)
        yield


def _patch_sizes(stack: ExitStack, unet: Any, state: HiDiffusionState) -> None:
    kind = state.kind
    # 1. upsamplers target the size of the skip connection, as diffusers does for sides that are not multiples of the
    # downsampling factor
    stack.callback(setattr, unet, "num_upsamplers", unet.num_upsamplers)
    unet.num_upsamplers = 62
    # 2. a downsampler reduces to a quarter
    _patch_convolution(stack, unet.down_blocks[kind.convolution].downsamplers[0].conv, lambda: state.quarters)
    # 3. a block pools, and another reverses it
    pooled, enlarged = unet.down_blocks[kind.pool].attentions[0], unet.up_blocks[kind.unpool].attentions[1]
    stack.callback(pooled.register_forward_hook(state.pool).remove)
    stack.callback(enlarged.register_forward_hook(state.unpool).remove)


def _patch_convolution(stack: ExitStack, convolution: Any, is_changed: Callable[[], bool]) -> None:
    """Give a 3 x 3 convolution of stride 2 a stride of 4 and a dilation of 2 while `is_changed`."""
    names = ("stride", "padding", "dilation")
    before = {name: getattr(convolution, name) for name in names}

    def change(_module: Any, _inputs: Any) -> None:
        if is_changed():
            for name, value in zip(names, ((4, 4), (2, 2), (2, 2)), strict=True):
                setattr(convolution, name, value)

    def restore(*_: Any) -> None:
        for name, value in before.items():
            setattr(convolution, name, value)

    stack.callback(restore)
    stack.callback(convolution.register_forward_pre_hook(change).remove)
    stack.callback(convolution.register_forward_hook(restore, always_call=True).remove)


def _patch_attention(stack: ExitStack, attention: Any, state: HiDiffusionState) -> None:
    """Compute a self-attention within windows."""
    current: list[_Windows] = []

    def split(_module: Any, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        features, *rest = inputs
        current[:] = [_Windows(state, features)]
        return current[0].split(features), *rest

    def join(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return current[0].join(output)

    stack.callback(attention.register_forward_pre_hook(split).remove)
    stack.callback(attention.register_forward_hook(join).remove)
