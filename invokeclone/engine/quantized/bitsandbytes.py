"""Tensors quantized by bitsandbytes: 4 bits, NF4 (arXiv 2305.14314) and FP4, and LLM.int8 (arXiv 2208.07339)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from invokeclone.engine.quantized.packed import PackedTensor
from invokeclone.graph.checkpoints import checkpoint

_STATES = (".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")
_SCALES = ".SCB"
_INT8_FORMAT = ".weight_format"
_INT8_MAX = 127.0
_BLOCK = 64


@dataclass(frozen=True)
class NF4Tensor(PackedTensor):
    """A matrix of 4-bit indices into a table of 16 values, with a scale for each block of consecutive values."""

    table: tuple[float, ...] = ()
    block: int = _BLOCK

    def decode_whole(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the matrix in a number format, decoded at once."""
        packed, scales = self.parts["packed"].view(torch.uint8), self.parts["scales"]
        indices = torch.stack([packed >> 4, packed & 15], dim=-1).flatten(1).int()
        values = torch.tensor(self.table, dtype=torch.float32, device=packed.device)[indices]
        blocks = values.reshape(-1, self.block) * scales.reshape(-1, 1)
        return blocks.reshape(self.shape).to(dtype)


@dataclass(frozen=True)
class Int8Tensor(PackedTensor):
    """A matrix of 8-bit integers with a scale per row. Activations are not quantized."""

    def decode_whole(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the matrix in a number format, decoded at once."""
        values = self.parts["values"].view(torch.int8).float() * (self.parts["scales"].float()[:, None] / _INT8_MAX)
        return values.to(dtype)


def unpack_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor | PackedTensor]:
    """Return a file's tensors with those that belong to one quantized matrix as one packed tensor.

    Raises ValueError for incomplete or unknown quantization states.
    """
    result: dict[str, torch.Tensor | PackedTensor] = {}
    for name, tensor in tensors.items():
        checkpoint()
        if state := next((name + ending for ending in _STATES if name + ending in tensors), None):
            result[name] = _table(name, state, tensors)
        elif name.endswith(".weight") and f"{name.removesuffix('.weight')}{_SCALES}" in tensors:
            result[name] = _int8(name, tensors)
        elif not _is_state(name):
            result[name] = tensor
    return result


def _is_state(name: str) -> bool:
    endings = (_SCALES, _INT8_FORMAT, ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
    return name.endswith(endings) or ".quant_state." in name


def _table(name: str, state_name: str, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor | PackedTensor:
    try:
        state = json.loads(bytes(tensors[state_name].to(torch.uint8).tolist()))
        shape, block = torch.Size(state["shape"]), int(state.get("blocksize", _BLOCK))
        table, scales = tensors[f"{name}.quant_map"].float(), tensors[f"{name}.absmax"]
        if scales.dtype == torch.uint8:
            scales = _decode_nested_scales(name, tensors, state)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the quantization state of {name} is damaged: {error}") from error
    _check_scales(name, scales)
    packed, values = tensors[name].reshape(-1), tuple(table.tolist())
    if len(shape) == 2 and shape[1] % block == 0:  # noqa: PLR2004 - a matrix whose rows are whole blocks
        parts = {"packed": packed.reshape(shape[0], -1), "scales": scales.float().reshape(shape[0], -1)}
        return NF4Tensor(parts, shape, values, block)
    whole = NF4Tensor(
        {"packed": packed[None], "scales": scales.float()[None]}, torch.Size([1, shape.numel()]), values, block
    )
    return whole.decode(torch.float32).reshape(shape)


def _decode_nested_scales(name: str, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> torch.Tensor:
    """Return the scales, which are themselves quantized in blocks."""
    codes, table = tensors[f"{name}.absmax"].int(), tensors[f"{name}.nested_quant_map"].float()
    outer = tensors[f"{name}.nested_absmax"].float()
    block = int(state.get("nested_blocksize", 256))
    factors = outer.repeat_interleave(block)[: len(codes)]
    return table[codes] * factors + float(state.get("nested_offset", 0.0))


def _int8(name: str, tensors: Mapping[str, torch.Tensor]) -> Int8Tensor:
    values, path = tensors[name], name.removesuffix(".weight")
    storage = tensors.get(f"{path}{_INT8_FORMAT}")
    if storage is not None and int(storage.flatten()[0]):
        raise ValueError(f"{name} is stored in a layout of bitsandbytes that only NVIDIA cards read: use another file")
    scales = tensors[f"{path}{_SCALES}"]
    _check_scales(name, scales)
    if values.ndim != 2 or scales.shape != values.shape[:1]:  # noqa: PLR2004 - a matrix
        raise ValueError(f"the scales of {name} do not fit its shape {list(values.shape)}: download the file again")
    return Int8Tensor({"values": values, "scales": scales}, values.shape)


def _check_scales(name: str, scales: torch.Tensor) -> None:
    if not bool(torch.isfinite(scales.float()).all()):
        raise ValueError(f"the scales of {name} are not numbers: the file is damaged, download it again")
