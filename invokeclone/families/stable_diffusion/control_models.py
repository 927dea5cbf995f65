"""Loading of ControlNets and T2I-Adapters as diffusers objects, from folders and single files."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from invokeclone.engine.loading.files import load_folder, read_json, read_tensors
from invokeclone.families.stable_diffusion.sizes import Weights, count, layers_per_block, network_config
from invokeclone.models.errors import InvalidModel

ORIGINAL_PREFIX = "control_model."
"""Prefixes of a ControlNet's tensors in files with the original layout, which may also contain a whole model."""
_DIFFUSERS_PREFIXES = (
    "controlnet_", "conv_in.", "time_embedding.", "add_embedding.", "down_blocks.", "mid_block.",
)  # fmt: skip
_ORIGINAL_PREFIXES = (
    "input_blocks.", "middle_block", "time_embed.", "label_emb.", "zero_convs.", "input_hint_block.",
)  # fmt: skip
_SIZE_EMBEDDING = {"label_emb.0.0.": "add_embedding.linear_1.", "label_emb.0.2.": "add_embedding.linear_2."}
"""SDXL's embedding of pooled prompt and sizes: original and diffusers names."""


class UnusableModel(ValueError):
    """A model's files are incomplete or damaged."""


def load_controlnet_folder(folder: Path, dtype: torch.dtype, variant: str | None = None) -> Any:
    """Return the ControlNetModel of a folder. Raises UnusableModel."""
    from diffusers.models.controlnets.controlnet import ControlNetModel

    with _reading(folder):
        return _check_weights(load_folder(folder, ControlNetModel, dtype, variant), folder)


def load_t2i_adapter_folder(folder: Path, dtype: torch.dtype, variant: str | None = None) -> Any:
    """Return the T2IAdapter of a folder. Raises UnusableModel."""
    from diffusers.models.adapter import T2IAdapter

    with _reading(folder):
        return _check_weights(load_folder(folder, T2IAdapter, dtype, variant), folder)


def load_controlnet_file(path: Path, dtype: torch.dtype, configs: Path) -> Any:
    """Return the ControlNetModel of a file in diffusers' or the original layout.

    Sizes come from the tensors, everything else from the config.json in `configs`/controlnet. Raises UnusableModel.
    """
    from diffusers.models.controlnets.controlnet import ControlNetModel

    with _reading(path):
        stored = read_tensors(path, (ORIGINAL_PREFIX, *_DIFFUSERS_PREFIXES, *_ORIGINAL_PREFIXES))
    weights = _diffusers_names(stored)
    if "controlnet_cond_embedding.conv_in.weight" not in weights:
        raise UnusableModel(
            f"{path.name} holds no ControlNet of Stable Diffusion: it has no layer for the control image"
        )
    with _reading(path), torch.device("meta"):
        published = read_json(configs / "controlnet" / "config.json")
        net = ControlNetModel.from_config(network_config(weights, published) | _image_sizes(weights))
    with _reading(path):
        net.load_state_dict(weights, assign=True)
    return _check_weights(net.to(dtype).eval(), path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise UnusableModel with the model's name for errors while its files are read."""
    from safetensors import SafetensorError

    try:
        yield
    except UnusableModel:
        raise
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, EOFError, InvalidModel) as error:
        reason = str(error).strip().partition("\n")[0]
        message = f"{path.name} cannot be loaded, its files may be incomplete: install it again ({reason})"
        raise UnusableModel(message) from error


def _check_weights(net: Any, path: Path) -> Any:
    """Return the network if all of its weights are present and finite, else raise UnusableModel."""
    for name, weight in net.named_parameters():
        if weight.is_meta:
            raise UnusableModel(f"{path.name} is incomplete ({name} is missing): install it again")
        if not bool(torch.isfinite(weight).all()):
            raise UnusableModel(f"{path.name} is damaged ({name} has NaN or infinite values): install it again")
    return net


def _diffusers_names(stored: Weights) -> Weights:
    """Return a ControlNet's tensors under diffusers' names."""
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    original = {n.removeprefix(ORIGINAL_PREFIX): value for n, value in stored.items() if n.startswith(ORIGINAL_PREFIX)}
    original = original or stored
    if "time_embed.0.weight" not in original:
        return {name: value for name, value in stored.items() if name.startswith(_DIFFUSERS_PREFIXES)}
    sizes = {"layers_per_block": layers_per_block(original)}
    weights: Weights = convert_controlnet_checkpoint(dict(original), sizes)
    for original_prefix, diffusers_prefix in _SIZE_EMBEDDING.items():
        for name in original:
            if name.startswith(original_prefix):
                weights[diffusers_prefix + name.removeprefix(original_prefix)] = original[name]
    return {name: value for name, value in weights.items() if value is not None}


def _image_sizes(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the sizes of the layers that process the control image."""
    first = weights["controlnet_cond_embedding.conv_in.weight"]
    levels = range(count(weights, "controlnet_cond_embedding.blocks") // 2)
    rest = [weights[f"controlnet_cond_embedding.blocks.{2 * level + 1}.weight"].shape[0] for level in levels]
    return {
        "conditioning_channels": first.shape[1],
        "conditioning_embedding_out_channels": [first.shape[0], *rest],
    }
