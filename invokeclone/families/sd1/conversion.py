"""What a single file of Stable Diffusion 1 is made of, for turning it into a folder."""

import json
from pathlib import Path

from invokeclone.engine.conversion import Checkpoint, Pipeline, converts
from invokeclone.families.sd1 import single_file
from invokeclone.graph.taxonomy import BaseModelType


@converts(BaseModelType.StableDiffusion1)
def parts(checkpoint: Checkpoint, configs: Path = single_file.FOLDER) -> Pipeline:
    """Return the parts of a single file; a safety checker is none of them."""
    path, dtype = checkpoint.path, checkpoint.dtype
    scheduler = json.loads((configs / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    return Pipeline(
        class_name="StableDiffusionPipeline",
        parts={
            "unet": lambda: single_file.unet(path, dtype, configs),
            "vae": lambda: single_file.vae(path, dtype, configs),
            "text_encoder": lambda: single_file.text_encoder(path, dtype, configs),
            "tokenizer": single_file.tokenizer,
        },
        scheduler=scheduler | {"prediction_type": checkpoint.prediction_type},
        settings={
            "safety_checker": [None, None],
            "feature_extractor": [None, None],
            "requires_safety_checker": False,
        },
    )
