"""FLUX.2's autoencoder: loading from folders and single files, and the normalization of its latents."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from invokeclone.components.autoencoders.load import kl_config
from invokeclone.engine.loading.files import load_folder, read_tensors
from invokeclone.engine.quantized.packed import fill

_PACKING = 2
_GROUPS = 32
_MAX_REASON = 300
_BATCHES = "bn.num_batches_tracked"
_UNIT = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0", "norm": "group_norm"}
"""Diffusers' names of the layers of the attention in the middle."""
_MATRIX_NDIM = 2


@dataclass(frozen=True)
class LatentStatistics:
    """Mean and standard deviation of squares of 2 x 2 latents: (channels · 4) in the order channel, row, column."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def normalize(self, latents: torch.Tensor) -> torch.Tensor:
        """Return latents (batch, channels, height, width), of even sides, with mean 0 and deviation 1, in float32."""
        squares = functional.pixel_unshuffle(latents.float(), _PACKING)
        return functional.pixel_shuffle((squares - self._on(self.mean, latents)) / self._on(self.deviation, latents), 2)

    def denormalize(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents of normalized ones, in float32."""
        squares = functional.pixel_unshuffle(latents.float(), _PACKING)
        return functional.pixel_shuffle(squares * self._on(self.deviation, latents) + self._on(self.mean, latents), 2)

    def _on(self, values: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        return values.to(latents.device)[None, :, None, None]


def statistics_of(vae: Any) -> LatentStatistics:
    """Return the statistics of an autoencoder's latents. Raises ValueError for an autoencoder of another kind."""
    if not hasattr(vae, "bn"):
        raise ValueError(
            "this VAE is not one of FLUX.2: connect the VAE of the main model, or a separate one of base flux2"
        )
    variance = vae.bn.running_var.detach().float().cpu() + vae.config.batch_norm_eps
    return LatentStatistics(vae.bn.running_mean.detach().float().cpu(), variance.sqrt())


def load_kl_flux2_folder(folder: Path, dtype: torch.dtype, variant: str | None = None) -> Any:
    """Return the AutoencoderKLFlux2 of a folder."""
    from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2

    return load_folder(folder, AutoencoderKLFlux2, dtype, variant)


def load_kl_flux2_file(path: Path, dtype: torch.dtype) -> Any:
    """Return the AutoencoderKLFlux2 of a file with Black Forest Labs' or diffusers' names; sizes are those of its tensors.

    Raises ValueError for missing tensors.
    """
    from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2

    try:
        weights = to_diffusers_names(read_tensors(path))
        with torch.device("meta"):
            vae = AutoencoderKLFlux2(**_config(weights))
        missing, _ = fill(vae, {_BATCHES: torch.tensor(0), **weights}, dtype)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:_MAX_REASON]
        raise ValueError(f"{path.name} holds an incomplete autoencoder, download it again: {reason}") from error
    if missing:
        raise ValueError(f"{path.name} holds an incomplete autoencoder ({missing[0]} is missing): download it again")
    return vae.eval()


def _config(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the configuration of the autoencoder with these tensors. Raises KeyError for missing ones."""
    config = kl_config(weights, {"norm_num_groups": _GROUPS})
    levels = len(config["block_out_channels"])
    decoder = [weights[f"decoder.up_blocks.{n}.resnets.0.conv1.weight"].shape[0] for n in reversed(range(levels))]
    groups = math.gcd(config["norm_num_groups"], *decoder)
    return {**config, "decoder_block_out_channels": decoder, "norm_num_groups": groups}


def to_diffusers_names(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors with diffusers' names; unknown names, such as diffusers' own, stay."""
    levels = [int(match[1]) for name in weights if (match := re.match(r"decoder\.up\.(\d+)\.", name))]
    last = max(levels, default=0)
    renamed = {}
    for name, value in weights.items():
        new = _rename(name, last)
        is_matrix = ".attentions." in new and new.endswith("weight") and value.ndim > _MATRIX_NDIM
        renamed[new] = value.flatten(1) if is_matrix else value
    return renamed


def _rename(name: str, last: int) -> str:
    """Return diffusers' name of a tensor; `last` is the number of the decoder's smallest level."""
    name = re.sub(r"^(?:encoder\.(?=quant_conv)|decoder\.(?=post_quant_conv))", "", name)
    name = re.sub(r"^encoder\.down\.(\d+)\.block\.", r"encoder.down_blocks.\1.resnets.", name)
    name = re.sub(r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0.", name)
    if match := re.match(r"decoder\.up\.(\d+)\.(block|upsample)\.", name):
        kind = "resnets" if match[2] == "block" else "upsamplers.0"
        name = f"decoder.up_blocks.{last - int(match[1])}.{kind}.{name[match.end() :]}"
    if match := re.match(r"((?:en|de)coder)\.mid\.(block|attn)_(\d+)\.(.+)", name):
        side, kind, number, rest = match.groups()
        if kind == "block":
            name = f"{side}.mid_block.resnets.{int(number) - 1}.{rest}"
        else:
            layer, _, tensor = rest.rpartition(".")
            name = f"{side}.mid_block.attentions.0.{_UNIT.get(layer, layer)}.{tensor}"
    name = re.sub(r"^((?:en|de)coder)\.norm_out\.", r"\1.conv_norm_out.", name)
    return name.replace(".nin_shortcut.", ".conv_shortcut.")
