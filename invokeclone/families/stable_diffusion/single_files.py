"""What single files of Stable Diffusion 1, 2, XL and the refiner consist of: a function for each part."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from invokeclone.components.autoencoders.load import load_kl_file
from invokeclone.components.clip.load import load_open_clip_file, load_text_encoder_file, tokenizer
from invokeclone.engine.files import read_tensors
from invokeclone.graph.taxonomy import BaseModelType

CONFIGS = Path(__file__).parent / "configs"
"""Per base a folder with the configurations of what its single files hold: sizes, and the published scheduler settings."""
UNET_PREFIX = "model.diffusion_model."
SD1_TEXT_PREFIX = "cond_stage_model.transformer."
SD2_TEXT_PREFIX = "cond_stage_model.model."
CLIP_L_PREFIX = "conditioner.embedders.0.transformer."
CLIP_G_PREFIX = "conditioner.embedders.1.model."
REFINER_CLIP_G_PREFIX = "conditioner.embedders.0.model."
_FIRST_WEIGHT = f"{UNET_PREFIX}input_blocks.0.0.weight"

Parts = Mapping[str, Callable[[], Any]]


class SingleFile(NamedTuple):
    """A file, the number format to load it in, and the folder with the configurations of its parts."""

    path: Path
    dtype: torch.dtype
    configs: Path


def parts(base: BaseModelType, path: Path, dtype: torch.dtype) -> Parts:
    """Return the parts of a published single file by the names that they have in a folder; calling one loads it."""
    make = _PARTS[base]
    return make(SingleFile(path, dtype, configs_of(base)))


def configs_of(base: BaseModelType) -> Path:
    """Return the folder with the published configurations of a base."""
    return CONFIGS / _FOLDERS[base]


def sd1_parts(file: SingleFile) -> Parts:
    """Return the parts of Stable Diffusion 1."""
    return {**_networks(file), "text_encoder": _clip_l(file, file.configs, SD1_TEXT_PREFIX), "tokenizer": tokenizer}


def sd2_parts(file: SingleFile) -> Parts:
    """Return the parts of Stable Diffusion 2."""
    config = file.configs / "text_encoder" / "config.json"
    encoder = partial(load_open_clip_file, file.path, file.dtype, config, SD2_TEXT_PREFIX, projection=False)
    return {**_networks(file), "text_encoder": encoder, "tokenizer": partial(tokenizer, "!")}


def sdxl_parts(file: SingleFile, clip_l: Path | None = None) -> Parts:
    """Return the parts of Stable Diffusion XL, whose first text encoder is Stable Diffusion 1's (`clip_l`: its configurations)."""
    first = _clip_l(file, clip_l or configs_of(BaseModelType.StableDiffusion1), CLIP_L_PREFIX)
    return {**_networks(file), "text_encoder": first, "tokenizer": tokenizer, **_clip_g(file, CLIP_G_PREFIX)}


def refiner_parts(file: SingleFile) -> Parts:
    """Return the parts of the refiner, which has the second text encoder only."""
    return {**_networks(file), **_clip_g(file, REFINER_CLIP_G_PREFIX)}


_PARTS: Mapping[BaseModelType, Callable[[SingleFile], Parts]] = {
    BaseModelType.StableDiffusion1: sd1_parts,
    BaseModelType.StableDiffusion2: sd2_parts,
    BaseModelType.StableDiffusionXL: sdxl_parts,
    BaseModelType.StableDiffusionXLRefiner: refiner_parts,
}
_FOLDERS = {
    BaseModelType.StableDiffusion1: "sd1",
    BaseModelType.StableDiffusion2: "sd2",
    BaseModelType.StableDiffusionXL: "sdxl",
    BaseModelType.StableDiffusionXLRefiner: "sdxl_refiner",
}


def load_unet_file(path: Path, dtype: torch.dtype, configs: Path) -> Any:
    """Return the UNet of a checkpoint; whether it is an inpainting model follows from its first weight.

    Raises ValueError for a file without one.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    weights = read_tensors(path, [UNET_PREFIX])
    if _FIRST_WEIGHT not in weights:
        raise ValueError(f"{path.name} holds no UNet of Stable Diffusion: {_FIRST_WEIGHT} is missing")
    unet = UNet2DConditionModel.from_single_file(
        weights,
        config=str(configs),
        subfolder="unet",
        in_channels=weights[_FIRST_WEIGHT].shape[1],
        torch_dtype=dtype,
        local_files_only=True,
    )
    return unet.eval()


def _networks(file: SingleFile) -> Parts:
    return {"unet": partial(load_unet_file, *file), "vae": partial(load_kl_file, *file)}


def _clip_l(file: SingleFile, configs: Path, prefix: str) -> Callable[[], Any]:
    config = configs / "text_encoder" / "config.json"
    return partial(load_text_encoder_file, file.path, file.dtype, config, prefix)


def _clip_g(file: SingleFile, prefix: str) -> Parts:
    config = file.configs / "text_encoder_2" / "config.json"
    load = partial(load_open_clip_file, file.path, file.dtype, config, prefix, projection=True)
    return {"text_encoder_2": load, "tokenizer_2": partial(tokenizer, "!")}
