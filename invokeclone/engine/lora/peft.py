"""Alphas and ranks in PEFT configurations, for all layers or by pattern.

PEFT stores them in adapter_config.json beside the weights, diffusers in the header of the safetensors file, per part of
a model.
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
"""The allowed characters of a pattern between its wildcards."""

Config = Mapping[str, Any]


@dataclass
class StoredLayer:
    """A layer of a LoRA file: its path in the model as written in the file, and its tensors by kind."""

    path: str
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)


Layers = dict[tuple[str, str], StoredLayer]
"""Layers by part and flat name."""


def read_config(path: Path, file: Path) -> Config:
    """Return the configuration of a LoRA folder or file, with keys such as `unet.lora_alpha` or `lora_alpha`.

    May be empty.
    """
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
    """Set the alpha of PEFT's configuration on layers without one. Ranks are taken from the layers' tensors."""
    for part, part_config in _parts(config, layout):
        for (layer_part, _), layer in layers.items():
            if layer_part == part and _DOWN in layer.tensors:
                alpha = _alpha(layer, part_config)
                if alpha is not None:
                    layer.tensors.setdefault("alpha", torch.tensor(alpha))


def _parts(config: Config, layout: KeyLayout) -> Iterator[tuple[str, Config]]:
    """Yield each part that the configuration applies to, with its settings."""
    prefixes = {name.rpartition(".")[0] for name in config if name.rpartition(".")[2] in _SETTINGS}
    for prefix in prefixes:
        dot = "." if prefix else ""
        meaning = read_name(f"{prefix}{dot}x.lora_A.weight", layout)
        if meaning is not None:
            yield meaning.part, {name: config.get(f"{prefix}{dot}{name}") for name in _SETTINGS}


def _alpha(layer: StoredLayer, config: Config) -> float | None:
    """Return the alpha that, divided by the rank, is a layer's scale; None if not configured."""
    patterns = config["alpha_pattern"] if isinstance(config["alpha_pattern"], dict) else {}
    value = next((alpha for pattern, alpha in patterns.items() if _matches(pattern, layer.path)), config["lora_alpha"])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    rank = layer.tensors[_DOWN].shape[0]
    return (
        float(value) * rank**0.5 if config["use_rslora"] is True else float(value)
    )  # rsLoRA divides by the square root of the rank


def _matches(pattern: str, path: str) -> bool:
    """Return whether a pattern matches the end of a layer's path.

    PEFT treats it as a regular expression. Only the wildcard `.*` is supported here, because the file is untrusted
    and other expressions can take exponential time.
    """
    pieces = pattern.removeprefix("^").removesuffix("$").replace(r"\.", ".").split(".*")
    if len(pieces) > _MAX_PIECES:
        return False
    return re.fullmatch(rf"(?:.*\.)?{'.*'.join(map(re.escape, pieces))}", path) is not None
