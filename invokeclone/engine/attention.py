"""Implementations of attention for denoising, by the settings `attention_type` and `attention_slice_size`.

All networks call torch's scaled_dot_product_attention, also those of other libraries and the ones in this package, so
replacing that function for the calls of one thread applies to every family.
"""

import functools
import importlib.util
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from invokeclone.engine.devices import DeviceMemory
from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings

logger = log.get("engine.attention")
Attend = Callable[..., torch.Tensor]
"""A function with the arguments of torch's scaled_dot_product_attention."""
_SHARE_OF_FREE_MEMORY = 0.75
"""Share of the free memory that the scores of a slice may take, for the slice size `auto`."""
_BYTES_PER_SCORE = 4
_HEADS = 4
"""Dimensions of queries with separate heads: (batch, heads, tokens, width)."""


@contextmanager
def attention_of(settings: Settings, memory: DeviceMemory) -> Iterator[None]:
    """Use the attention of the settings for all networks that this thread runs inside the block."""
    attend = _choose(settings, memory)
    if attend is None:
        yield
        return
    with _Replacement(attend):
        yield


def _choose(settings: Settings, memory: DeviceMemory) -> Attend | None:
    """Return the implementation; None for torch's own, which selects the fastest kernel for each call."""
    if settings.attention_type == "sliced":
        return functools.partial(attend_in_slices, heads=_slice_heads(settings.attention_slice_size, memory))
    if settings.attention_type == "xformers":
        return _xformers(memory.device)
    return None


class _Replacement(TorchFunctionMode):  # type: ignore[misc]  # torch does not type it
    """Calls another function instead of scaled_dot_product_attention in this thread inside the block."""

    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self._attend = attend

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is functional.scaled_dot_product_attention:
            return self._attend(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


SliceHeads = Callable[[torch.Tensor, torch.Tensor], int]
"""Returns the number of heads that are computed at a time, from queries and keys (batch, heads, tokens, width)."""


def _slice_heads(size: str | int, memory: DeviceMemory) -> SliceHeads:
    match size:
        case "max":
            return lambda _query, _key: 1
        case "balanced":
            return lambda query, _key: math.ceil(query.shape[1] / 2)
        case "auto":
            budget = memory.free() * _SHARE_OF_FREE_MEMORY / _BYTES_PER_SCORE

            def fitting(query: torch.Tensor, key: torch.Tensor) -> int:
                return int(budget // max(1, len(query) * query.shape[2] * key.shape[2]))

            return fitting
        case _:
            return lambda _query, _key: int(size)


def attend_in_slices(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    heads: SliceHeads,
) -> torch.Tensor:
    """Return torch's attention, computed for some heads at a time, so that fewer scores exist at once."""
    attend = functools.partial(
        functional.scaled_dot_product_attention,
        dropout_p=dropout_p, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa,
    )  # fmt: skip
    if query.ndim != _HEADS or enable_gqa:
        return attend(query, key, value, attn_mask)
    count, step = query.shape[1], max(1, heads(query, key))
    if step >= count:
        return attend(query, key, value, attn_mask)
    parts = []
    for first in range(0, count, step):
        part = slice(first, first + step)
        parts.append(attend(query[:, part], key[:, part], value[:, part], _mask_of(attn_mask, part, count)))
    return torch.cat(parts, dim=1)


def _mask_of(mask: torch.Tensor | None, part: slice, heads: int) -> torch.Tensor | None:
    """Return the mask of some heads; a mask (…, queries, keys) without a dimension of heads applies to each."""
    if mask is None or mask.ndim < _HEADS - 1 or mask.shape[-3] != heads:
        return mask
    return mask[..., part, :, :]


@functools.cache
def _xformers(device: torch.device) -> Attend | None:
    """Return xformers' attention; None, with one line in the log, where it cannot be used."""
    if importlib.util.find_spec("xformers") is None:
        logger.warning(
            "attention_type is xformers, which is not installed: torch's attention is used. Install xformers, or set "
            "attention_type to auto"
        )
        return None
    if device.type != "cuda":
        logger.warning("attention_type is xformers, which needs a CUDA device: torch's attention is used")
        return None
    return functools.partial(xformers_attention, importlib.import_module("xformers.ops").memory_efficient_attention)


def xformers_attention(
    attend: Attend,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Return attention computed by `attend`, which has the arguments of xformers' memory_efficient_attention.

    Calls that it does not support, with a mask or shared keys, are torch's.
    """
    if query.ndim != _HEADS or attn_mask is not None or is_causal or enable_gqa:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    inputs = (tensor.transpose(1, 2).contiguous() for tensor in (query, key, value))
    return attend(*inputs, p=dropout_p, scale=scale).transpose(1, 2)
