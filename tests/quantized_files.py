"""Quantized weight files, written by the libraries that define the formats or by their published formulas."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

NF4_TABLE = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def write_gguf(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    kind: str,
    metadata: Mapping[str, Any] | None = None,
    architecture: str = "flux",
) -> None:
    """Write a GGUF file; matrices whose rows are whole blocks are quantized, other tensors are float32.

    `metadata` are lists and numbers of floating point.
    """
    from gguf import GGMLQuantizationType, GGUFWriter, quants
    from gguf.constants import GGML_QUANT_SIZES

    number = GGMLQuantizationType[kind]
    block, _ = GGML_QUANT_SIZES[number]
    writer = GGUFWriter(path, architecture)
    for name, value in (metadata or {}).items():
        (writer.add_float32 if isinstance(value, float) else writer.add_array)(name, value)
    for name, tensor in tensors.items():
        array = tensor.float().numpy()
        if array.ndim == 2 and array.shape[1] % block == 0:
            writer.add_tensor(name, quants.quantize(array, number), raw_dtype=number)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_blocks(kind: str, rows: int, blocks: int, seed: int = 0) -> torch.Tensor:
    """Return packed bytes (rows, bytes) of a type that gguf cannot write, with finite scales."""
    from gguf import GGMLQuantizationType
    from gguf.constants import GGML_QUANT_SIZES

    _, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    generator = np.random.default_rng(seed)
    packed = generator.integers(0, 256, (rows * blocks, size), dtype=np.uint8)
    scale = generator.uniform(0.001, 0.01, (rows * blocks, 1)).astype(np.float16).view(np.uint8)
    positions = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_XS": (0,)}
    for position in positions[kind]:
        packed[:, position : position + 2] = scale
    return torch.from_numpy(packed.reshape(rows, -1))


def nf4(name: str, weight: torch.Tensor, *, nested: bool = False, block: int = 64) -> dict[str, torch.Tensor]:
    """Return the tensors that bitsandbytes stores for a weight in NF4."""
    table = torch.tensor(NF4_TABLE)
    blocks = weight.float().reshape(-1, block)
    scales = blocks.abs().amax(dim=1).clamp(min=1e-8)
    indices = torch.bucketize(blocks / scales[:, None], (table[1:] + table[:-1]) / 2).flatten()
    packed = ((indices[::2] << 4) | indices[1::2]).to(torch.uint8)[:, None]
    state: dict[str, Any] = {"quant_type": "nf4", "blocksize": block, "dtype": "bfloat16", "shape": list(weight.shape)}
    stored = {name: packed, f"{name}.quant_map": table, f"{name}.absmax": scales}
    if nested:
        offset, inner = float(scales.mean()), torch.linspace(-1.0, 1.0, 256)
        outer = (scales - offset).abs().amax().clamp(min=1e-8)[None]
        codes = ((scales - offset) / outer).unsqueeze(-1).sub(inner).abs().argmin(dim=-1)
        state |= {"nested_blocksize": 256, "nested_offset": offset, "nested_dtype": "float32"}
        groups = -(-len(scales) // 256)
        stored |= {
            f"{name}.absmax": codes.to(torch.uint8),
            f"{name}.nested_absmax": outer.repeat(groups),
            f"{name}.nested_quant_map": inner,
        }
    stored[f"{name}.quant_state.bitsandbytes__nf4"] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    return stored


def int8(path: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the tensors that bitsandbytes stores for the weight of the layer `path` in 8 bits."""
    scales = weight.float().abs().amax(dim=1).clamp(min=1e-8)
    values = (weight.float() / scales[:, None] * 127).round().to(torch.int8)
    return {f"{path}.weight": values, f"{path}.SCB": scales, f"{path}.weight_format": torch.zeros(1, dtype=torch.uint8)}


def float8(path: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return a layer's weight in 8-bit floats with a scale per row, as in scaled files of Black Forest Labs and ComfyUI."""
    scales = weight.float().abs().amax(dim=1).clamp(min=1e-8) / 448
    return {
        f"{path}.weight": (weight.float() / scales[:, None]).to(torch.float8_e4m3fn),
        f"{path}.weight_scale": scales,
    }


def sdnq_uint4(path: str, weight: torch.Tensor, group: int = 16) -> dict[str, torch.Tensor]:
    """Return the tensors that SDNQ stores for a layer's weight in 4 bits with a scale and zero point per group."""
    groups = weight.float().reshape(len(weight), -1, group if weight.shape[1] % group == 0 else weight.shape[1])
    zero_points, highest = groups.amin(dim=-1, keepdim=True), groups.amax(dim=-1, keepdim=True)
    scales = ((highest - zero_points) / 15).clamp(min=1e-8)
    codes = ((groups - zero_points) / scales).round().clamp(0, 15).to(torch.uint8).flatten()
    packed = codes[::2] | (codes[1::2] << 4)
    return {f"{path}.weight": packed, f"{path}.scale": scales, f"{path}.zero_point": zero_points}
