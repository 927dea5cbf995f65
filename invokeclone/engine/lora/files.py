"""Reading of LoRA files: single files, and folders saved by diffusers and PEFT, with any naming scheme."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from invokeclone.engine.loading.files import read_tensors
from invokeclone.engine.lora import peft
from invokeclone.engine.lora.keys import KeyLayout, TensorName, adapter_names, read_name
from invokeclone.engine.lora.layers import LayerChange, UnknownLayer, read_layer
from invokeclone.engine.lora.peft import Layers, StoredLayer
from invokeclone.engine.lora.stacks import StackedChange

_WEIGHTS = (
    "pytorch_lora_weights.safetensors",
    "pytorch_lora_weights.bin",
    "adapter_model.safetensors",
    "adapter_model.bin",
)


@dataclass
class LoRAWeights:
    """The layer changes of a LoRA, per part of the model and by flat name."""

    parts: dict[str, dict[str, LayerChange | StackedChange]]
    size: int = field(default=0)
    """Size of its tensors in bytes."""

    def calc_size(self) -> int:
        """Return the size in bytes, for the model cache."""
        return self.size


def load_lora(path: Path, layout: KeyLayout, dtype: torch.dtype) -> LoRAWeights:
    """Return the LoRA of a file or folder, with its tensors in `dtype`.

    Raises ValueError for files that cannot be read, have NaN or infinite values, or have layers of an unknown kind.
    """
    file = _weights_file(path)
    try:
        tensors = read_tensors(file)
    except Exception as error:  # the readers raise many kinds of errors for broken files
        raise ValueError(f"the LoRA {file.name} cannot be read; download it again ({error})") from error
    if not tensors:
        raise ValueError(f"the LoRA {file.name} holds no tensors")
    if len(names := adapter_names(tensors)) > 1:
        raise ValueError(f"the LoRA {file.name} holds several adapters, export one: {', '.join(sorted(names))}")
    layers = _group(tensors, layout)
    peft.add_alphas(layers, peft.read_config(path, file), layout)
    return _build(layers, layout, file.name, dtype)


def _weights_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in _WEIGHTS:
        if (path / name).is_file():
            return path / name
    raise ValueError(f"the folder {path.name} holds no LoRA: it has none of {', '.join(_WEIGHTS)}")


def _group(tensors: Mapping[str, torch.Tensor], layout: KeyLayout) -> Layers:
    layers: Layers = {}
    for name, tensor in tensors.items():
        meaning: TensorName | None = read_name(name, layout)
        if meaning is not None:
            layer = layers.setdefault((meaning.part, meaning.layer), StoredLayer(meaning.path))
            layer.tensors[meaning.kind] = tensor
    return layers


def _build(layers: Layers, layout: KeyLayout, name: str, dtype: torch.dtype) -> LoRAWeights:
    weights = LoRAWeights({})
    for (part, layer), stored in layers.items():
        tensors = stored.tensors
        if tensors.keys() == {"alpha"}:
            continue
        converted = {kind: _convert(tensor, kind, dtype) for kind, tensor in tensors.items()}
        if not _all_finite(converted.values()):
            raise ValueError(f"the LoRA {name} is damaged: layer {layer} has NaN or infinite values")
        try:
            change = read_layer(converted)
        except KeyError as error:
            raise ValueError(
                f"the LoRA {name} is incomplete: layer {layer} lacks {error.args[0]}; download it again"
            ) from error
        except (UnknownLayer, RuntimeError) as error:
            raise ValueError(f"the LoRA {name} cannot be used: layer {layer}: {error}") from error
        stack = layout.stack(layer)
        weights.parts.setdefault(part, {})[layer] = change if stack is None else StackedChange(change, stack)
        weights.size += sum(tensor.nbytes for tensor in converted.values())
    return weights


def _convert(tensor: torch.Tensor, kind: str, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor in the compute dtype; counts and indices are unchanged."""
    return tensor.to(dtype) if tensor.is_floating_point() and kind != "alpha" else tensor


def _all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor.is_floating_point())
