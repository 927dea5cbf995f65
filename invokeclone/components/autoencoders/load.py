"""Loading of autoencoders as diffusers objects, from a folder or a single file."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from invokeclone.engine.loading.files import load_folder, read_json, read_tensors

PREFIX = "first_stage_model."
"""Prefix of an autoencoder's tensors in a Stable Diffusion checkpoint."""
_ORIGINAL_LEVEL = "encoder.down.0.block.0.conv1.weight"
"""A tensor that marks files with the original names."""
_MAX_REASON = 300
_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


def load_kl_folder(folder: Path, dtype: torch.dtype, variant: str | None = None) -> Any:
    """Return the AutoencoderKL or AutoencoderTiny of a folder."""
    if read_json(folder / "config.json").get("_class_name") == "AutoencoderTiny":
        from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny as Model
    else:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL as Model
    return load_folder(folder, Model, dtype, variant)


def load_kl_file(path: Path, dtype: torch.dtype, configs: Path, prefix: str = PREFIX) -> Any:
    """Return the AutoencoderKL of a checkpoint, or of a file with only an autoencoder.

    Tensor names, after the `prefix`, are the original ones or diffusers'. Sizes come from the tensors, everything else from the
    published config.json in `configs`/vae. Raises ValueError for a file without an autoencoder.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    weights = {name.removeprefix(prefix): value for name, value in read_tensors(path, [prefix, *_PARTS]).items()}
    if "decoder.conv_in.weight" not in weights:
        raise ValueError(
            f"{path.name} holds no autoencoder (decoder.conv_in.weight is missing): "
            "select a separate VAE model, or a file that contains one"
        )
    published = read_json(configs / "vae" / "config.json")
    try:
        config = kl_config(weights, published)
        with torch.device("meta"):
            vae = AutoencoderKL.from_config(config)
        renamed = weights if _ORIGINAL_LEVEL not in weights else _diffusers_names(weights, config)
        vae.load_state_dict({name: value.to(dtype) for name, value in renamed.items()}, assign=True)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:_MAX_REASON]
        raise ValueError(f"{path.name} holds an incomplete autoencoder, download it again: {reason}") from error
    return vae.eval()


def kl_config(weights: Mapping[str, torch.Tensor], published: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of the autoencoder with these tensors. Raises KeyError for missing tensors."""
    level, layer = ("encoder.down", "block") if _ORIGINAL_LEVEL in weights else ("encoder.down_blocks", "resnets")
    levels = range(_count(weights, level))
    channels = [weights[f"{level}.{number}.{layer}.0.conv1.weight"].shape[0] for number in levels]
    return {
        **published,
        "in_channels": weights["encoder.conv_in.weight"].shape[1],
        "out_channels": weights["decoder.conv_out.weight"].shape[0],
        "latent_channels": weights["decoder.conv_in.weight"].shape[1],
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "layers_per_block": _count(weights, f"{level}.0.{layer}"),
        "norm_num_groups": math.gcd(published["norm_num_groups"], *channels),
        "use_quant_conv": "quant_conv.weight" in weights,
        "use_post_quant_conv": "post_quant_conv.weight" in weights,
    }


def _diffusers_names(weights: dict[str, torch.Tensor], config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    renamed: dict[str, torch.Tensor] = convert_ldm_vae_checkpoint(weights, config)
    return renamed


def _count(weights: Mapping[str, torch.Tensor], prefix: str) -> int:
    """Return the number of numbered modules directly below `prefix`."""
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    return len({match[1] for name in weights if (match := pattern.match(name))})
