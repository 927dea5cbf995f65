"""What a single file of Stable Diffusion 2 is made of, for turning it into a folder."""

import json
from pathlib import Path
from typing import Any

from invokeclone.engine import open_clip
from invokeclone.engine.conversion import Checkpoint, Pipeline, converts
from invokeclone.families.sd1 import single_file
from invokeclone.graph.taxonomy import BaseModelType

FOLDER = Path(__file__).parent / "checkpoint"
TEXT_PREFIX = "cond_stage_model.model."


@converts(BaseModelType.StableDiffusion2)
def parts(checkpoint: Checkpoint, configs: Path = FOLDER) -> Pipeline:
    """Return the parts of a single file."""
    path, dtype = checkpoint.path, checkpoint.dtype

    def text_encoder() -> Any:
        from transformers import CLIPTextConfig

        config = CLIPTextConfig(**json.loads((configs / "text_encoder" / "config.json").read_text("utf-8")))
        weights = single_file.read(path, [TEXT_PREFIX])
        bare = {name.removeprefix(TEXT_PREFIX): value for name, value in weights.items()}
        return open_clip.load(bare, config, projection=False, dtype=dtype)

    scheduler = json.loads((configs / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    return Pipeline(
        class_name="StableDiffusionPipeline",
        parts={
            "unet": lambda: single_file.unet(path, dtype, configs),
            "vae": lambda: single_file.vae(path, dtype, configs),
            "text_encoder": text_encoder,
            "tokenizer": lambda: single_file.tokenizer(pad="!"),
        },
        scheduler=scheduler | {"prediction_type": checkpoint.prediction_type},
        settings={
            "safety_checker": [None, None],
            "feature_extractor": [None, None],
            "requires_safety_checker": False,
        },
    )
