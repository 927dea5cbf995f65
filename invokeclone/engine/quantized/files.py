"""Reading of weight files whose tensors may be quantized."""

from pathlib import Path

import torch

from invokeclone.engine.loading.files import read_tensors
from invokeclone.engine.quantized import bitsandbytes, gguf
from invokeclone.engine.quantized.packed import PackedTensor


def read_weights(path: Path) -> dict[str, torch.Tensor | PackedTensor]:
    """Return the tensors of a GGUF, safetensors or torch file; quantized matrices are packed.

    Raises InvalidModel for a damaged file, and ValueError for quantizations that cannot be decoded.
    """
    if path.suffix.lower() == ".gguf":
        return dict(gguf.read_tensors(path))
    return bitsandbytes.unpack_names(read_tensors(path))
