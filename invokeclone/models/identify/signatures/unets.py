"""Rules for main models with a UNet (Stable Diffusion 1, 2, XL): the base by the width of the text embeddings."""

import re

from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelVariantType, SchedulerPredictionType
from invokeclone.models.configs.defaults import MainModelDefaultSettings
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Rule, require
from invokeclone.models.identify.signatures import forms

PIPELINES = (
    "StableDiffusionPipeline", "StableDiffusionInpaintPipeline", "StableDiffusionXLPipeline",
    "StableDiffusionXLInpaintPipeline", "StableDiffusionXLImg2ImgPipeline", "LatentConsistencyModelPipeline",
)  # fmt: skip
PREFIXES = ("cond_stage_model.", "first_stage_model.", "model.diffusion_model.")

BASE_OF_WIDTH = {
    768: BaseModelType.StableDiffusion1,
    1024: BaseModelType.StableDiffusion2,
    1280: BaseModelType.StableDiffusionXLRefiner,
    2048: BaseModelType.StableDiffusionXL,
}
"""The architecture by the width of the text embeddings that its UNet attends to."""

VARIANT_OF_CHANNELS = {4: ModelVariantType.Normal, 5: ModelVariantType.Depth, 9: ModelVariantType.Inpaint}
"""The variant by the number of input channels of the UNet."""

EDGES = {
    BaseModelType.StableDiffusion1: 512,
    BaseModelType.StableDiffusion2: 768,
    BaseModelType.StableDiffusionXL: 1024,
}
"""Width and height in pixels that the models were trained for."""

_UNET = "model.diffusion_model.input_blocks"
_ATTENTION = re.compile(r"model\.diffusion_model\.(?:input|middle|output)_blocks?\..*\.attn2\.to_k\.weight")
_STEPS_OF_SD2_BASE = "220000"
_VELOCITY_MARK = "v_pred"
"""Empty tensor that marks v-prediction checkpoints, next to `ztsnr` for zero terminal signal-to-noise ratio."""
_LATENT_CHANNELS = 4


def rules(pipeline: type[ModelConfig], checkpoint: type[ModelConfig], base: BaseModelType) -> tuple[Rule, Rule]:
    """Return the rules for a family's pipelines and checkpoints."""
    edge = EDGES.get(base)

    def settings(_: ModelFiles) -> MainModelDefaultSettings | None:
        return MainModelDefaultSettings(width=edge, height=edge) if edge else None

    def prediction(model: ModelFiles) -> SchedulerPredictionType:
        second = base == BaseModelType.StableDiffusion2 and model.metadata.get("global_step") != _STEPS_OF_SD2_BASE
        velocity = second or _VELOCITY_MARK in model.tensors
        return SchedulerPredictionType.VPrediction if velocity else SchedulerPredictionType.Epsilon

    return (
        Rule(
            config=pipeline,
            recognizes=_is_pipeline,
            base=_base_of_pipeline,
            detectors={
                "variant": _variant_of_pipeline,
                "prediction_type": _prediction_of_pipeline,
                "repo_variant": forms.repo_variant,
                "default_settings": settings,
            },
        ),
        Rule(
            config=checkpoint,
            recognizes=_is_checkpoint,
            base=_base_of_checkpoint,
            detectors={
                "variant": _variant_of_checkpoint,
                "prediction_type": prediction,
                "default_settings": settings,
            },
        ),
    )


def _is_pipeline(model: ModelFiles) -> None:
    require(model.is_folder, "it is not a folder")
    require(model.json("model_index.json"), "it has no model_index.json")
    require(model.class_name in PIPELINES, f"its class is {model.class_name}")


def _base_of_pipeline(model: ModelFiles) -> BaseModelType | None:
    return BASE_OF_WIDTH.get(forms.number(model.json("unet/config.json"), "cross_attention_dim") or 0)


def _variant_of_pipeline(model: ModelFiles) -> ModelVariantType:
    channels = model.json("unet/config.json").get("in_channels", _LATENT_CHANNELS)
    require(channels in VARIANT_OF_CHANNELS, f"its UNet has {channels} input channels")
    return VARIANT_OF_CHANNELS[channels]


def _prediction_of_pipeline(model: ModelFiles) -> SchedulerPredictionType:
    prediction_type = model.json("scheduler/scheduler_config.json").get("prediction_type", "epsilon")
    require(prediction_type in set(SchedulerPredictionType), f"its scheduler predicts {prediction_type}")
    return SchedulerPredictionType(prediction_type)


def _is_checkpoint(model: ModelFiles) -> None:
    require(not model.is_folder, "it is a folder")
    require(model.has_prefix(*PREFIXES), "it has no tensors of a Stable Diffusion checkpoint")
    require(model.has_prefix(f"{_UNET}."), "its denoiser is not a UNet")


def _base_of_checkpoint(model: ModelFiles) -> BaseModelType | None:
    widths = (t.shape[-1] for name, t in model.tensors.items() if _ATTENTION.fullmatch(name) and t.shape)
    return BASE_OF_WIDTH.get(next(widths, 0))


def _variant_of_checkpoint(model: ModelFiles) -> ModelVariantType:
    first = model.shape(f"{_UNET}.0.0.weight")
    channels = first[1] if len(first) > 1 else None
    require(channels in VARIANT_OF_CHANNELS, f"its UNet has {channels} input channels")
    return VARIANT_OF_CHANNELS[channels or _LATENT_CHANNELS]
