"""What PEFT's configuration says of a LoRA's strength: alphas and ranks of all layers or of some, and how they are divided.

PEFT keeps it in adapter_config.json beside the weights, diffusers in the header of the safetensors file, per part of a model.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from invokeclone.engine.lora.keys import KeyLayout, read_name

_FILE = "adapter_config.json"
_HEADER_ENTRY = "lora_adapter_metadata"
_SETTINGS = ("lora_alpha", "alpha_pattern", "use_rslora")
_DOWN = "lora_down.weight"
_MAX_PIECES = 4
"""Of a pattern, between its wildcards."""

Config = Mapping[str, Any]


@dataclass
class StoredLayer:
    """A layer of a LoRA file: its path in the model as the file has it, and its tensors by kind."""

    path: str
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)


Layers = dict[tuple[str, str], StoredLayer]
"""By part and flat name."""


def read_config(path: Path, file: Path) -> Config:
    """Return the configuration of a LoRA's folder or file, with names as `unet.lora_alpha` or `lora_alpha`; empty: none."""
    text = None
    if path.is_dir() and (path / _FILE).is_file():
        text = (path / _FILE).read_text(encoding="utf-8")
    elif file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, framework="pt") as opened:
            text = (opened.metadata() or {}).get(_HEADER_ENTRY)
    try:
        config = json.loads(text) if text else {}
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def add_alphas(layers: Layers, config: Config, layout: KeyLayout) -> None:
    """Give layers without an alpha the one of PEFT's configuration. The layers' ranks are those of their tensors."""
    for part, part_config in _parts(config, layout):
        for (layer_part, _), layer in layers.items():
            if layer_part == part and _DOWN in layer.tensors:
                alpha = _alpha(layer, part_config)
                if alpha is not None:
                    layer.tensors.setdefault("alpha", torch.tensor(alpha))


def _parts(config: Config, layout: KeyLayout) -> Iterator[tuple[str, Config]]:
    """Yield each part that the configuration is for, and its settings."""
    prefixes = {name.rpartition(".")[0] for name in config if name.rpartition(".")[2] in _SETTINGS}
    for prefix in prefixes:
        dot = "." if prefix else ""
        meaning = read_name(f"{prefix}{dot}x.lora_A.weight", layout)
        if meaning is not None:
            yield meaning.part, {name: config.get(f"{prefix}{dot}{name}") for name in _SETTINGS}


def _alpha(layer: StoredLayer, config: Config) -> float | None:
    """Return what, divided by the rank, is a layer's scale; None where the configuration does not say."""
    patterns = config["alpha_pattern"] if isinstance(config["alpha_pattern"], dict) else {}
    value = next((alpha for pattern, alpha in patterns.items() if _matches(pattern, layer.path)), config["lora_alpha"])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    rank = layer.tensors[_DOWN].shape[0]
    return (
        float(value) * rank**0.5 if config["use_rslora"] is True else float(value)
    )  # by the root of the rank, not by it


def _matches(pattern: str, path: str) -> bool:
    """Tell whether a pattern is for the end of a layer's path.

    PEFT reads it as a regular expression. Of those the wildcard `.*` is read here: the file may be anybody's, and others can take
    forever.
    """
    pieces = pattern.removeprefix("^").removesuffix("$").replace(r"\.", ".").split(".*")
    if len(pieces) > _MAX_PIECES:
        return False
    return re.fullmatch(rf"(?:.*\.)?{'.*'.join(map(re.escape, pieces))}", path) is not None
