"""What single files of Stable Diffusion 1, 2, XL and the refiner consist of, for turning them into folders."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from invokeclone.components.autoencoders.load import load_kl_file
from invokeclone.components.clip.load import load_open_clip_file, load_text_encoder_file, tokenizer
from invokeclone.engine.conversion import Checkpoint, Pipeline, converts
from invokeclone.engine.files import read_json
from invokeclone.families.stable_diffusion.load import (
    CONFIGS,
    SD1,
    SD1_TEXT_PREFIX,
    SD2,
    load_sd2_text_encoder_file,
    load_unet_file,
)
from invokeclone.graph.taxonomy import BaseModelType

SDXL, REFINER = CONFIGS / "sdxl", CONFIGS / "sdxl_refiner"
CLIP_L_PREFIX = "conditioner.embedders.0.transformer."
CLIP_G_PREFIX = "conditioner.embedders.1.model."
REFINER_CLIP_G_PREFIX = "conditioner.embedders.0.model."
_NO_CHECKER = {
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
}
Parts = Mapping[str, Callable[[], Any]]


@converts(BaseModelType.StableDiffusion1)
def sd1_parts(checkpoint: Checkpoint, configs: Path = SD1) -> Pipeline:
    """Return the parts of a single file of Stable Diffusion 1; a safety checker is none of them."""
    config = configs / "text_encoder" / "config.json"
    encoder = partial(load_text_encoder_file, checkpoint.path, checkpoint.dtype, config, SD1_TEXT_PREFIX)
    return _pipeline(checkpoint, configs, {"text_encoder": encoder, "tokenizer": tokenizer}, _NO_CHECKER)


@converts(BaseModelType.StableDiffusion2)
def sd2_parts(checkpoint: Checkpoint, configs: Path = SD2) -> Pipeline:
    """Return the parts of a single file of Stable Diffusion 2."""
    encoder = partial(load_sd2_text_encoder_file, checkpoint.path, checkpoint.dtype, configs)
    encoders = {"text_encoder": encoder, "tokenizer": partial(tokenizer, "!")}
    return _pipeline(checkpoint, configs, encoders, _NO_CHECKER)


@converts(BaseModelType.StableDiffusionXL)
def sdxl_parts(checkpoint: Checkpoint, configs: Path = SDXL, clip_l: Path = SD1) -> Pipeline:
    """Return the parts of a single file of Stable Diffusion XL, whose first text encoder is Stable Diffusion 1's."""
    config = clip_l / "text_encoder" / "config.json"
    encoders: Parts = {
        "text_encoder": partial(load_text_encoder_file, checkpoint.path, checkpoint.dtype, config, CLIP_L_PREFIX),
        "tokenizer": tokenizer,
        **_clip_g(checkpoint, configs, CLIP_G_PREFIX),
    }
    settings = {"force_zeros_for_empty_prompt": True}
    return _pipeline(checkpoint, configs, encoders, settings, "StableDiffusionXLPipeline")


@converts(BaseModelType.StableDiffusionXLRefiner)
def refiner_parts(checkpoint: Checkpoint, configs: Path = REFINER) -> Pipeline:
    """Return the parts of a single file of the refiner, which has the second text encoder only."""
    settings = {"text_encoder": [None, None], "tokenizer": [None, None], "requires_aesthetics_score": True}
    encoders = _clip_g(checkpoint, configs, REFINER_CLIP_G_PREFIX)
    return _pipeline(checkpoint, configs, encoders, settings, "StableDiffusionXLImg2ImgPipeline")


def _clip_g(checkpoint: Checkpoint, configs: Path, prefix: str) -> Parts:
    config = configs / "text_encoder_2" / "config.json"
    load = partial(load_open_clip_file, checkpoint.path, checkpoint.dtype, config, prefix, projection=True)
    return {"text_encoder_2": load, "tokenizer_2": partial(tokenizer, "!")}


def _pipeline(
    checkpoint: Checkpoint,
    configs: Path,
    encoders: Parts,
    settings: Mapping[str, Any],
    class_name: str = "StableDiffusionPipeline",
) -> Pipeline:
    path, dtype = checkpoint.path, checkpoint.dtype
    return Pipeline(
        class_name=class_name,
        parts={
            "unet": partial(load_unet_file, path, dtype, configs),
            "vae": partial(load_kl_file, path, dtype, configs),
            **encoders,
        },
        scheduler=read_json(configs / "scheduler" / "scheduler_config.json")
        | {"prediction_type": checkpoint.prediction_type},
        settings=settings,
    )
