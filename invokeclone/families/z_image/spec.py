"""Record classes, identification rules and architectures of Z-Image. Does not import torch."""

from typing import Literal

from pydantic import Field

from invokeclone.components.autoencoders import latent_spaces
from invokeclone.graph.vocabulary.architectures import Architecture, Capabilities, ModelDefaults
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ZImageVariantType
from invokeclone.models.configs.defaults import MainModelDefaultSettings
from invokeclone.models.configs.kinds import (
    GGUF,
    Checkpoint,
    ControlNetModel,
    Diffusers,
    LoRAFolder,
    LoRAModel,
    LyCORIS,
    MainModel,
    SDNQFile,
    SDNQFolder,
)
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Family, Rule, UnsupportedKind, require
from invokeclone.models.identify.signatures import control, forms, loras


class _ZImage(ModelConfig):
    base: Literal[BaseModelType.ZImage] = BaseModelType.ZImage


class _Main(MainModel):
    variant: ZImageVariantType = Field(description="Which published model it is")


class Main_Diffusers_ZImage_Config(_Main, Diffusers, _ZImage):
    """Z-Image in a folder."""


class Main_Checkpoint_ZImage_Config(_Main, Checkpoint, _ZImage):
    """Z-Image in one file."""


class Main_GGUF_ZImage_Config(_Main, GGUF, _ZImage):
    """Z-Image in GGUF format."""


class Main_SDNQ_ZImage_Config(_Main, SDNQFile, _ZImage):
    """Z-Image in one file quantized by SDNQ."""


class Main_SDNQ_Diffusers_ZImage_Config(_Main, SDNQFolder, _ZImage):
    """Z-Image in a folder quantized by SDNQ."""


class ControlNet_Checkpoint_ZImage_Config(ControlNetModel, Checkpoint, _ZImage):
    """A ControlNet of Z-Image in one file."""


class LoRA_LyCORIS_ZImage_Config(LoRAModel, LyCORIS, _ZImage):
    """A LoRA of Z-Image in one file."""

    variant: ZImageVariantType | None = Field(default=None, description="Which published model it is")


class LoRA_Diffusers_ZImage_Config(LoRAModel, LoRAFolder, _ZImage):
    """A LoRA of Z-Image in a folder."""

    variant: ZImageVariantType | None = Field(default=None, description="Which published model it is")


_PIPELINES = ("ZImagePipeline",)
_MARKS = {"cap_embedder", "context_refiner", "cap_pad_token"}
_SHIFT_OF_BASE = 5
_LUMINA_WIDTH = 2304
_IDEOGRAM_WIDTH = 4608
_OTHER_WIDTHS = (_LUMINA_WIDTH, _IDEOGRAM_WIDTH)
_is_for_layers = loras.names_match(
    r"(?:layers|context_refiner|noise_refiner)[._]\d+[._](?:attention|feed_forward|adaLN)|(?:cap_embedder|x_embedder)[._]\d"
)
_SETTINGS = {
    ZImageVariantType.Turbo: MainModelDefaultSettings(width=1024, height=1024, steps=9, cfg_scale=1),
    ZImageVariantType.ZBase: MainModelDefaultSettings(width=1024, height=1024, steps=50, cfg_scale=4),
}


def _is_transformer(model: ModelFiles) -> None:
    parts = {part for name in model.tensors for part in name.split(".")}
    require(parts & _MARKS, "it has no tensors of Z-Image")
    require(not loras.is_lora(model), "it is a LoRA")
    require(not model.has_prefix("control_layers."), "it is a ControlNet")


def _is_lora(model: ModelFiles) -> bool:
    return _is_for_layers(model) and _lora_width(model) not in _OTHER_WIDTHS


def _lora_width(model: ModelFiles) -> int | None:
    return loras.input_of(
        model, r"(?:layers|refiner)[._]\d+[._](?:attention[._](?:to_[qkv]|qkv)|feed_forward[._]w[13])"
    )


def _is_lumina(model: ModelFiles) -> bool:
    """Return whether a file is of Lumina Image 2, which has the same tensor names with other widths, or OmniGen 2."""
    weights = loras.weights_of(model)
    if loras.is_lora(weights):
        return _is_for_layers(weights) and _lora_width(weights) == _LUMINA_WIDTH
    names = weights.without_prefixes(*forms.COMFY_PREFIXES)
    caption = names.get("cap_embedder.0.weight")
    if caption is not None and caption.shape == (_LUMINA_WIDTH,):
        return True
    return any(name.startswith(("time_caption_embed.", "ref_image_refiner.")) for name in names)


def _variant_of_folder(model: ModelFiles) -> ZImageVariantType:
    shift = model.json("scheduler/scheduler_config.json").get("shift")
    large = isinstance(shift, int | float) and shift >= _SHIFT_OF_BASE
    return ZImageVariantType.ZBase if large else ZImageVariantType.Turbo


def _variant_of_file(_: ModelFiles) -> ZImageVariantType:
    return ZImageVariantType.Turbo


def _is_controlnet(model: ModelFiles) -> None:
    require(not model.is_folder, "it is a folder")
    require(model.has_prefix("control_layers."), "it has no tensors of a ControlNet of Z-Image")


def _file(config: type[ModelConfig], form: ModelFormat) -> Rule:
    detects = {"variant": _variant_of_file, "default_settings": forms.settings_of(_variant_of_file, _SETTINGS)}
    return Rule(config=config, recognizes=forms.is_file_of(form, _is_transformer), detectors=detects)


_OF_FOLDER = {
    "variant": _variant_of_folder,
    "repo_variant": forms.repo_variant,
    "default_settings": forms.settings_of(_variant_of_folder, _SETTINGS),
}

FAMILY = Family(
    rules=(
        Rule(config=Main_Diffusers_ZImage_Config, recognizes=forms.is_pipeline_of(*_PIPELINES), detectors=_OF_FOLDER),
        _file(Main_Checkpoint_ZImage_Config, ModelFormat.Checkpoint),
        _file(Main_GGUF_ZImage_Config, ModelFormat.GGUFQuantized),
        _file(Main_SDNQ_ZImage_Config, ModelFormat.SDNQQuantized),
        Rule(
            config=Main_SDNQ_Diffusers_ZImage_Config,
            recognizes=forms.is_pipeline_of(*_PIPELINES, sdnq=True),
            detectors=_OF_FOLDER | {"submodels": forms.submodels},
        ),
        Rule(config=ControlNet_Checkpoint_ZImage_Config, recognizes=_is_controlnet, detectors=control.SETTINGS),
        loras.rule(LoRA_LyCORIS_ZImage_Config, _is_lora),
        loras.rule(LoRA_Diffusers_ZImage_Config, _is_lora),
    ),
    architectures=(
        Architecture(
            BaseModelType.ZImage,
            (latent_spaces.Z_IMAGE,),
            ModelDefaults(1024, 1024, steps=9, guidance=1.0),
            Capabilities(
                schedulers=("euler", "heun", "lcm"),
                image_to_image=True,
                inpaint=True,
                hires_fix=True,
                partial_denoise=True,
                lora=True,
                control=True,
                regional_prompts=True,
                separate_vae=True,
            ),
            variant_defaults={ZImageVariantType.ZBase: ModelDefaults(1024, 1024, steps=50, guidance=4.0)},
            noise_type="Z-Image",
        ),
    ),
    unsupported=(
        UnsupportedKind("Lumina Image 2 or OmniGen 2, or a LoRA of them", _is_lumina),
        UnsupportedKind(
            "Z-Image in bitsandbytes' 4 bits in one file; use GGUF, 8-bit floats, SDNQ, or a folder",
            forms.is_four_bit_file_of(_is_transformer),
        ),
    ),
)
