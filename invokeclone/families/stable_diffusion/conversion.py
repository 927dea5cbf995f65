"""Conversion of single files of Stable Diffusion 1, 2, XL and the refiner to diffusers folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from invokeclone.engine.loading.conversion import Pipeline, SourceCheckpoint, converts
from invokeclone.families.stable_diffusion import single_files
from invokeclone.families.stable_diffusion.single_files import INPAINTING_CHANNELS, Parts, SingleFile, configs_of
from invokeclone.graph.vocabulary.taxonomy import BaseModelType

_NO_CHECKER = {
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
}

_INPAINTING = {
    "StableDiffusionPipeline": "StableDiffusionInpaintPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLInpaintPipeline",
}


@converts(BaseModelType.StableDiffusion1)
def sd1_pipeline(checkpoint: SourceCheckpoint, configs: Path | None = None) -> Pipeline:
    """Return the pipeline of a single file of Stable Diffusion 1, without a safety checker."""
    file = _file(checkpoint, BaseModelType.StableDiffusion1, configs)
    return _pipeline(checkpoint, file, single_files.sd1_parts(file), _NO_CHECKER)


@converts(BaseModelType.StableDiffusion2)
def sd2_pipeline(checkpoint: SourceCheckpoint, configs: Path | None = None) -> Pipeline:
    """Return the pipeline of a single file of Stable Diffusion 2."""
    file = _file(checkpoint, BaseModelType.StableDiffusion2, configs)
    return _pipeline(checkpoint, file, single_files.sd2_parts(file), _NO_CHECKER)


@converts(BaseModelType.StableDiffusionXL)
def sdxl_pipeline(checkpoint: SourceCheckpoint, configs: Path | None = None, clip_l: Path | None = None) -> Pipeline:
    """Return the pipeline of a single file of Stable Diffusion XL."""
    file = _file(checkpoint, BaseModelType.StableDiffusionXL, configs)
    settings = {"force_zeros_for_empty_prompt": True}
    return _pipeline(checkpoint, file, single_files.sdxl_parts(file, clip_l), settings, "StableDiffusionXLPipeline")


@converts(BaseModelType.StableDiffusionXLRefiner)
def refiner_pipeline(checkpoint: SourceCheckpoint, configs: Path | None = None) -> Pipeline:
    """Return the pipeline of a single file of the refiner."""
    file = _file(checkpoint, BaseModelType.StableDiffusionXLRefiner, configs)
    settings = {"text_encoder": [None, None], "tokenizer": [None, None], "requires_aesthetics_score": True}
    return _pipeline(checkpoint, file, single_files.refiner_parts(file), settings, "StableDiffusionXLImg2ImgPipeline")


def _file(checkpoint: SourceCheckpoint, base: BaseModelType, configs: Path | None) -> SingleFile:
    return SingleFile(checkpoint.path, checkpoint.dtype, configs or configs_of(base))


def _pipeline(
    checkpoint: SourceCheckpoint,
    file: SingleFile,
    parts: Parts,
    settings: Mapping[str, Any],
    class_name: str = "StableDiffusionPipeline",
) -> Pipeline:
    scheduler = single_files.scheduler_config(file.path, file.configs)
    if single_files.in_channels(file.path) == INPAINTING_CHANNELS:
        class_name = _INPAINTING.get(class_name, class_name)
    return Pipeline(class_name, parts, scheduler | {"prediction_type": checkpoint.prediction_type}, settings)
