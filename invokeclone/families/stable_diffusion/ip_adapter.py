"""IP-Adapters: image prompts that the UNet attends to in addition to the text (arXiv 2308.06721)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import nn

from invokeclone.components.clip.vision import pixels
from invokeclone.components.control.image_projections import ImageProjection, load_projection
from invokeclone.engine.loading.files import read_tensors

_FILE_IN_FOLDER = "ip_adapter.bin"
_LAYER = re.compile(r"(\d+)\.(to_k_ip|to_v_ip)\.weight")
_PROJECTION, _LAYERS = "image_proj.", "ip_adapter."
_UNUSED = ("image_proj_model.", "adapter_modules.")


class ImageLayer(nn.Module):  # type: ignore[misc]
    """Key and value projections of image tokens in one attention layer."""

    def __init__(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """Take the weights, (layer's width, tokens' width)."""
        super().__init__()
        self.to_k, self.to_v = nn.Parameter(key, requires_grad=False), nn.Parameter(value, requires_grad=False)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values."""
        return tokens @ self.to_k.T, tokens @ self.to_v.T


class IPAdapter(nn.Module):  # type: ignore[misc]
    """An image projection, and the layers by index of the cross-attention among all attention layers of the UNet."""

    def __init__(self, projection: ImageProjection, layers: Mapping[int, ImageLayer]) -> None:
        """Combine the projection and the layers."""
        super().__init__()
        self.projection = projection
        self.layers = nn.ModuleDict({str(number): layer for number, layer in layers.items()})


def load(path: Path, dtype: torch.dtype) -> IPAdapter:
    """Return the IP-Adapter of a file, or of a folder with ip_adapter.bin. Raises ValueError for other files."""
    file = path / _FILE_IN_FOLDER if path.is_dir() else path
    tensors = _flat(read_tensors(file))
    unknown = next((n for n in tensors if not n.startswith((_PROJECTION, _LAYERS, *_UNUSED))), None)
    if unknown is not None:
        raise ValueError(f"{file.name} is not an IP-Adapter for Stable Diffusion: it has an unknown tensor {unknown}")
    if damaged := next((n for n, value in tensors.items() if not bool(torch.isfinite(value).all())), None):
        raise ValueError(f"{file.name} is damaged: {damaged} has NaN or infinite values; download it again")
    try:
        adapter = IPAdapter(load_projection(_inside(tensors, _PROJECTION), dtype), _layers(tensors, dtype))
    except ValueError as error:
        raise ValueError(f"{file.name} is not an IP-Adapter for Stable Diffusion: {error}") from error
    adapter.eval()
    return adapter


def _flat(tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return tensors and those of nested dictionaries under names joined by dots."""
    result: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        if isinstance(value, Mapping):
            result |= {f"{name}.{inner}": tensor for inner, tensor in value.items()}
        else:
            result[name] = value
    return result


def _inside(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _layers(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[int, ImageLayer]:
    parts: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _inside(tensors, _LAYERS).items():
        if not (match := _LAYER.fullmatch(name)):
            raise ValueError(f"it has an unknown tensor {_LAYERS}{name}")
        parts.setdefault(int(match[1]), {})[match[2]] = value.to(dtype)
    if incomplete := next((number for number, part in parts.items() if len(part) != 2), None):  # noqa: PLR2004
        raise ValueError(f"its layer {incomplete} is incomplete")
    return {number: ImageLayer(part["to_k_ip"], part["to_v_ip"]) for number, part in sorted(parts.items())}


@dataclass(frozen=True)
class KeysValues:
    """Keys and values of image tokens in one attention layer, each (1, tokens, layer's width)."""

    keys: torch.Tensor
    values: torch.Tensor

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Return them on `device` in `dtype`."""
        return type(self)(self.keys.to(device, dtype), self.values.to(device, dtype))


@dataclass(frozen=True)
class ImagePrompt:
    """Encoded images that a run attends to."""

    positive: Mapping[int, KeysValues]
    """Keys and values of the images by index of the attention layer."""
    negative: Mapping[int, KeysValues]
    """Unconditional keys and values, for the rows of the negative prompt."""
    weight: float | Sequence[float] = 1.0
    """One weight, or one per call of the loop."""
    begin: float = 0.0
    """Start as a fraction of the run."""
    end: float = 1.0
    blocks: Sequence[str] = ()
    """Substrings of the names of the layers that it applies to; empty for all layers."""
    negative_blocks: Sequence[str] = ()
    """Layers in which the negative prompt's rows attend to the images, and the positive ones to zeros."""
    mask: torch.Tensor | None = None
    """Shape (height, width), above 0.5 inside the region; None for the whole image."""

    def is_for(self, layer: str) -> bool:
        """Return whether it applies to the layer of this name."""
        return not self.blocks or any(block in layer for block in self.blocks)

    def is_negative_in(self, layer: str) -> bool:
        """Return whether the images are for the negative prompt in the layer of this name."""
        return any(block in layer for block in self.negative_blocks)

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Return it on `device` in `dtype`."""
        positive, negative = (
            {number: pair.to(device, dtype) for number, pair in side.items()} for side in (self.positive, self.negative)
        )
        return replace(self, positive=positive, negative=negative)


def encode(
    adapter: IPAdapter,
    encoder: Any,
    images: Sequence[Image.Image],
    device: torch.device,
    encoder_device: torch.device | None = None,
) -> tuple[dict[int, KeysValues], dict[int, KeysValues]]:
    """Return keys and values of images for each layer, and the unconditional ones.

    The adapter computes on `device`, the encoder too unless it has another. Raises ValueError for another image encoder.
    """
    with torch.inference_mode():
        # 1. tokens; those of several images are concatenated
        inputs = pixels(images).to(encoder_device or device)
        sides = [side.flatten(0, 1)[None] for side in adapter.projection.tokens(encoder, inputs, device)]
        # 2. keys and values of each layer
        layers = {int(number): layer for number, layer in adapter.layers.items()}
        for number, layer in layers.items():
            if (width := layer.to_k.shape[1]) != sides[0].shape[-1]:
                raise ValueError(
                    f"the IP-Adapter is damaged: its layer {number} needs tokens of width {width}, but its image projection "
                    f"produces width {sides[0].shape[-1]}; download it again"
                )
        first, second = ({number: KeysValues(*layer(side)) for number, layer in layers.items()} for side in sides)
    return first, second
