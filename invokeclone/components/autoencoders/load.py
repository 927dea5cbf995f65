"""Autoencoders as diffusers objects, from a folder or a single file."""

from pathlib import Path
from typing import Any

import torch

from invokeclone.engine.files import load_folder, read_json, read_tensors

PREFIX = "first_stage_model."
"""Before the names of an autoencoder's tensors in a Stable Diffusion checkpoint."""
_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")


def load_kl_folder(folder: Path, dtype: torch.dtype, variant: str | None = None) -> Any:
    """Return the AutoencoderKL or AutoencoderTiny in a folder."""
    if read_json(folder / "config.json").get("_class_name") == "AutoencoderTiny":
        from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny as Model
    else:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL as Model
    return load_folder(folder, Model, dtype, variant)


def load_kl_file(path: Path, dtype: torch.dtype, configs: Path) -> Any:
    """Return the AutoencoderKL of a checkpoint, or of a file that holds nothing else; `configs` has its config.json in `vae/`.

    Raises ValueError for a file without one.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    weights = {name.removeprefix(PREFIX): value for name, value in read_tensors(path, [PREFIX, *_PARTS]).items()}
    if "decoder.conv_in.weight" not in weights:
        raise ValueError(f"{path.name} holds no autoencoder: decoder.conv_in.weight is missing")
    vae = AutoencoderKL.from_single_file(
        weights, config=str(configs), subfolder="vae", torch_dtype=dtype, local_files_only=True
    )
    return vae.eval()
