"""Parts of single files of Stable Diffusion 1, 2, XL and the refiner, with a load function each."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from invokeclone.components.autoencoders.load import load_kl_file
from invokeclone.components.clip.load import load_open_clip_file, load_text_encoder_file, tokenizer
from invokeclone.engine.loading.files import read_json, read_tensors
from invokeclone.families.stable_diffusion.sizes import layers_per_block, unet_config
from invokeclone.graph.vocabulary.taxonomy import BaseModelType

CONFIGS = Path(__file__).parent / "configs"
"""A folder per base with the configurations of its parts: sizes, and the published scheduler settings."""
UNET_PREFIX = "model.diffusion_model."
SD1_TEXT_PREFIX = "cond_stage_model.transformer."
SD2_TEXT_PREFIX = "cond_stage_model.model."
CLIP_L_PREFIX = "conditioner.embedders.0.transformer."
CLIP_G_PREFIX = "conditioner.embedders.1.model."
REFINER_CLIP_G_PREFIX = "conditioner.embedders.0.model."
FIRST_WEIGHT = f"{UNET_PREFIX}input_blocks.0.0.weight"
INPAINTING_CHANNELS = 9
"""Channels of a UNet whose input is latents, a mask, and the latents of the masked image."""
_ZERO_TERMINAL_SNR = "ztsnr"
"""Name of an empty tensor in files of models with zero terminal signal-to-noise ratio."""
_SIZE_EMBEDDING = f"{UNET_PREFIX}label_emb.0.0.weight"
_MAX_REASON = 300

Parts = Mapping[str, Callable[[], Any]]


class SingleFile(NamedTuple):
    """A file, the number format to load it in, and the folder with the configurations of its parts."""

    path: Path
    dtype: torch.dtype
    configs: Path


def parts(base: BaseModelType, path: Path, dtype: torch.dtype) -> Parts:
    """Return the load functions of a published single file's parts, by their names in a folder."""
    make = _PARTS[base]
    return make(SingleFile(path, dtype, configs_of(base)))


def configs_of(base: BaseModelType) -> Path:
    """Return the folder with the published configurations of a base."""
    return CONFIGS / _FOLDERS[base]


def scheduler_config(path: Path, configs: Path) -> dict[str, Any]:
    """Return the sampler settings of a file: the published ones, overridden by those in the file."""
    config = read_json(configs / "scheduler" / "scheduler_config.json")
    return config | {"rescale_betas_zero_snr": True} if read_tensors(path, [_ZERO_TERMINAL_SNR]) else config


def in_channels(path: Path) -> int | None:
    """Return the input channels of a file's UNet (9: inpainting, 5: depth), None for a file without one."""
    first = read_tensors(path, [FIRST_WEIGHT]).get(FIRST_WEIGHT)
    return None if first is None else int(first.shape[1])


def sd1_parts(file: SingleFile) -> Parts:
    """Return the parts of Stable Diffusion 1."""
    return {**_networks(file), "text_encoder": _clip_l(file, file.configs, SD1_TEXT_PREFIX), "tokenizer": tokenizer}


def sd2_parts(file: SingleFile) -> Parts:
    """Return the parts of Stable Diffusion 2."""
    config = file.configs / "text_encoder" / "config.json"
    load = partial(load_open_clip_file, file.path, file.dtype, config, SD2_TEXT_PREFIX)
    encoder = partial(load, projection=False, unused_layers=1)
    return {**_networks(file), "text_encoder": encoder, "tokenizer": partial(tokenizer, "!")}


def sdxl_parts(file: SingleFile, clip_l: Path | None = None) -> Parts:
    """Return the parts of Stable Diffusion XL.

    Its first text encoder is that of Stable Diffusion 1, configured by `clip_l`.
    """
    first = _clip_l(file, clip_l or configs_of(BaseModelType.StableDiffusion1), CLIP_L_PREFIX)
    return {**_networks(file), "text_encoder": first, "tokenizer": tokenizer, **_clip_g(file, CLIP_G_PREFIX)}


def refiner_parts(file: SingleFile) -> Parts:
    """Return the parts of the refiner, which has only the second text encoder."""
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
    """Return the UNet of a checkpoint, with sizes from its tensors. Averaged weights (model_ema) are ignored.

    Raises ValueError for a file without a complete UNet.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    stored = read_tensors(path, [UNET_PREFIX])
    if FIRST_WEIGHT not in stored:
        raise ValueError(f"{path.name} holds no UNet of Stable Diffusion: {FIRST_WEIGHT} is missing")
    try:
        weights = _diffusers_names(stored)
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(unet_config(weights, read_json(configs / "unet" / "config.json")))
        unet.load_state_dict({name: value.to(dtype) for name, value in weights.items()}, assign=True)
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"{path.name} holds an incomplete UNet of Stable Diffusion, download it again: {_summary(error)}"
        ) from error
    return unet.eval()


def _diffusers_names(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    layers = layers_per_block({name.removeprefix(UNET_PREFIX): value for name, value in stored.items()})
    kind = "text_time" if _SIZE_EMBEDDING in stored else None
    weights = convert_ldm_unet_checkpoint(stored, {"layers_per_block": layers, "addition_embed_type": kind})
    return {name: value for name, value in weights.items() if value is not None}


def _summary(error: Exception) -> str:
    """Return the beginning of torch's error about weights, which may list a thousand names."""
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:_MAX_REASON]


def _networks(file: SingleFile) -> Parts:
    return {"unet": partial(load_unet_file, *file), "vae": partial(load_kl_file, *file)}


def _clip_l(file: SingleFile, configs: Path, prefix: str) -> Callable[[], Any]:
    config = configs / "text_encoder" / "config.json"
    return partial(load_text_encoder_file, file.path, file.dtype, config, prefix)


def _clip_g(file: SingleFile, prefix: str) -> Parts:
    config = file.configs / "text_encoder_2" / "config.json"
    load = partial(load_open_clip_file, file.path, file.dtype, config, prefix, projection=True)
    return {"text_encoder_2": load, "tokenizer_2": partial(tokenizer, "!")}
