"""Matrices in 8-bit floats (arXiv 2209.05433), as they are or with scales that the values are multiplied by.

Scales have the names of Black Forest Labs' and ComfyUI's files or of fine-grained files of transformers. Products are
in float32.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from invokeclone.engine.quantized.packed import PackedTensor
from invokeclone.graph.checkpoints import checkpoint

_WEIGHT = ".weight"
_SCALES = (".weight_scale", ".scale_weight", ".weight_scale_inv")
"""Endings of scales, in place of that of the weight."""
_SECOND_SCALE = ".weight_scale_2"
_FORMAT = ".comfy_quant"
"""Ending of the JSON text that names the number format of a layer of ComfyUI's files."""
_INPUTS = (".input_scale", ".scale_input")
"""Endings of scales for activations in 8 bits, which are not used."""
_MARK = "scaled_fp8"
"""An empty tensor of files with scales."""
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_KIND_NAMES = ("float8_e4m3fn", "float8_e5m2")
_COMMON_BLOCK = 128
"""Side of blocks whose number times their size is more than the side of the matrix."""
_SHIFT = 23 - 3
"""From the lowest bit of the fraction of float8_e4m3fn to that of float32."""
_SIGN_AND_VALUE = -(1 << 31) | (127 << _SHIFT)
_NAN = 127
"""The bits of NaN without the sign; there is no infinity."""
_BIAS_FACTOR = 2.0 ** (127 - 7)
"""By which numbers are too small if their exponent, which counts from -7, is read as that of float32."""

Tensors = Mapping[str, torch.Tensor | PackedTensor]


@dataclass(frozen=True)
class Float8Tensor(PackedTensor):
    """A matrix of 8-bit floats; its part `scales`, if it exists, has one per row and block of columns."""

    block: int = 0
    """Columns per scale."""

    def decode_whole(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the matrix in a number format, decoded at once."""
        values, scales = self.parts["values"], self.parts.get("scales")
        if scales is None:
            return to_float32(values).to(dtype)
        if scales.shape[1] > 1:
            scales = scales.repeat_interleave(self.block, dim=1)[:, : self.shape[1]]
        return (to_float32(values) * scales).to(dtype)


def to_float32(values: torch.Tensor) -> torch.Tensor:
    """Return 8-bit floats in float32. On the CPU, their bits are moved to those of float32: torch takes twice as long."""
    if values.device.type != "cpu" or values.dtype != torch.float8_e4m3fn:
        return values.float()
    bits = values.view(torch.int8).to(torch.int32)  # the sign fills the upper bits
    moved = bits.bitwise_left_shift_(_SHIFT).bitwise_and_(_SIGN_AND_VALUE).view(torch.float32)
    moved *= _BIAS_FACTOR
    is_nan = (values.view(torch.int8) & _NAN) == _NAN
    return torch.where(is_nan, torch.nan, moved) if bool(is_nan.any()) else moved


def unpack_names(tensors: Tensors) -> dict[str, torch.Tensor | PackedTensor]:
    """Return a file's tensors with each matrix of 8-bit floats and its scales as one packed tensor.

    Other tensors with scales are multiplied by them. Raises ValueError for number formats that cannot be decoded, and
    for scales that are not finite or do not fit.
    """
    result: dict[str, torch.Tensor | PackedTensor] = {}
    for name, value in tensors.items():
        checkpoint()
        if _is_state(name, tensors):
            continue
        result[name] = _decode(name, value, tensors) if isinstance(value, torch.Tensor) else value
    return result


def _is_state(name: str, tensors: Tensors) -> bool:
    """Return whether a tensor describes others; a scale without its weight is a tensor like others."""
    if name.endswith((*_INPUTS, _FORMAT)) or name.rpartition(".")[2] == _MARK:
        return True
    ending = next((ending for ending in _SCALES if name.endswith(ending)), None)
    return ending is not None and f"{name.removesuffix(ending)}{_WEIGHT}" in tensors


def _decode(name: str, value: torch.Tensor, tensors: Tensors) -> torch.Tensor | PackedTensor:
    if not name.endswith(_WEIGHT):
        return value
    path = name.removesuffix(_WEIGHT)
    _check_format(path, value, tensors)
    scale = next((tensors[path + ending] for ending in _SCALES if path + ending in tensors), None)
    if not isinstance(scale, torch.Tensor):
        is_matrix = value.dtype in FLOAT8 and value.ndim == 2  # noqa: PLR2004
        return Float8Tensor({"values": value}, value.shape) if is_matrix else value
    if not bool(torch.isfinite(scale.float()).all()):
        raise ValueError(f"the scales of {name} are not numbers: the file is damaged, download it again")
    if value.ndim != 2:  # noqa: PLR2004 - one factor per entry of the first dimension, or one for all
        if scale.numel() not in (1, *value.shape[:1]):
            raise ValueError(_misfit(name, scale, value.shape))
        return value.float() * scale.float().reshape(-1, *[1] * (value.ndim - 1))
    scales, block = _scales_by_row(name, scale.float(), value.shape)
    packed = Float8Tensor({"values": value, "scales": scales}, value.shape, block)
    return packed if value.dtype in FLOAT8 else packed.decode(torch.float32)


def _scales_by_row(name: str, scale: torch.Tensor, shape: torch.Size) -> tuple[torch.Tensor, int]:
    """Return scales (rows, blocks) and the columns per block. The file has one, one per row, or one per block."""
    rows = shape[0]
    if scale.numel() == 1:
        scale = scale.reshape(1, 1)
    elif scale.ndim == 1:
        scale = scale[:, None]
    if scale.ndim == 2:  # noqa: PLR2004
        blocks = [_block(size, count) for size, count in zip(shape, scale.shape, strict=True)]
        if all(blocks):
            return scale.repeat_interleave(blocks[0], dim=0)[:rows].contiguous(), blocks[1]
    raise ValueError(_misfit(name, scale, shape))


def _misfit(name: str, scale: torch.Tensor, shape: torch.Size) -> str:
    return f"the scales of {name} have the shape {list(scale.shape)}, which does not fit {list(shape)}"


def _block(size: int, count: int) -> int:
    """Return the entries per block of `size` entries in `count` blocks; 0 if they cannot be divided so."""
    if count == 0 or size == 0:
        return 0
    if size % count == 0:
        return size // count
    return _COMMON_BLOCK if -(-size // _COMMON_BLOCK) == count else 0


def _check_format(path: str, value: torch.Tensor, tensors: Tensors) -> None:
    """Raise ValueError for the number formats of ComfyUI that are not 8-bit floats."""
    text = tensors.get(path + _FORMAT)
    kind = "float4" if path + _SECOND_SCALE in tensors else _KIND_NAMES[0]
    if isinstance(text, torch.Tensor):
        try:
            kind = str(json.loads(bytes(text.to(torch.uint8).flatten().tolist()))["format"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}{_FORMAT} is damaged: download the file again") from error
    if kind not in _KIND_NAMES:
        raise ValueError(
            f"{path} is stored in the number format {kind}, which cannot be decoded: use a file in "
            f"{' or '.join(_KIND_NAMES)}, GGUF or bfloat16"
        )
    if not value.is_floating_point() and any(path + ending in tensors for ending in _SCALES):
        raise ValueError(f"{path} has scales for 8-bit floats but is stored as {value.dtype}, which cannot be decoded")
