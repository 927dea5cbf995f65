"""What a single file of Stable Diffusion XL, or of its refiner, is made of, for turning it into a folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from invokeclone.engine import open_clip
from invokeclone.engine.conversion import Checkpoint, Pipeline, converts
from invokeclone.families.sd1 import single_file
from invokeclone.graph.taxonomy import BaseModelType

FOLDER = Path(__file__).parent / "checkpoint"
REFINER_FOLDER = Path(__file__).parent / "refiner"
CLIP_L_PREFIX = "conditioner.embedders.0.transformer."
CLIP_G_PREFIX = "conditioner.embedders.1.model."
REFINER_CLIP_G_PREFIX = "conditioner.embedders.0.model."


@converts(BaseModelType.StableDiffusionXL)
def parts(checkpoint: Checkpoint, configs: Path = FOLDER, clip_l: Path = single_file.FOLDER) -> Pipeline:
    """Return the parts of a single file of the main model."""
    path, dtype = checkpoint.path, checkpoint.dtype
    return _pipeline(
        checkpoint,
        configs,
        {
            "text_encoder": lambda: single_file.text_encoder(path, dtype, clip_l, CLIP_L_PREFIX),
            "tokenizer": single_file.tokenizer,
            "text_encoder_2": _clip_g(checkpoint, configs, CLIP_G_PREFIX),
            "tokenizer_2": lambda: single_file.tokenizer(pad="!"),
        },
        {"force_zeros_for_empty_prompt": True},
    )


@converts(BaseModelType.StableDiffusionXLRefiner)
def refiner_parts(checkpoint: Checkpoint, configs: Path = REFINER_FOLDER) -> Pipeline:
    """Return the parts of a single file of the refiner, which has the second text encoder only."""
    return _pipeline(
        checkpoint,
        configs,
        {
            "text_encoder_2": _clip_g(checkpoint, configs, REFINER_CLIP_G_PREFIX),
            "tokenizer_2": lambda: single_file.tokenizer(pad="!"),
        },
        {"text_encoder": [None, None], "tokenizer": [None, None], "requires_aesthetics_score": True},
        "StableDiffusionXLImg2ImgPipeline",
    )


def _clip_g(checkpoint: Checkpoint, configs: Path, prefix: str) -> Callable[[], Any]:
    def load() -> Any:
        from transformers import CLIPTextConfig

        config = CLIPTextConfig(**json.loads((configs / "text_encoder_2" / "config.json").read_text("utf-8")))
        weights = single_file.read(checkpoint.path, [prefix])
        bare = {name.removeprefix(prefix): value for name, value in weights.items()}
        return open_clip.load(bare, config, projection=True, dtype=checkpoint.dtype)

    return load


def _pipeline(
    checkpoint: Checkpoint,
    configs: Path,
    encoders: dict[str, Callable[[], Any]],
    settings: dict[str, Any],
    class_name: str = "StableDiffusionXLPipeline",
) -> Pipeline:
    path, dtype = checkpoint.path, checkpoint.dtype
    scheduler = json.loads((configs / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    return Pipeline(
        class_name=class_name,
        parts={
            "unet": lambda: single_file.unet(path, dtype, configs),
            "vae": lambda: single_file.vae(path, dtype, configs),
            **encoders,
        },
        scheduler=scheduler | {"prediction_type": checkpoint.prediction_type},
        settings=settings,
    )
