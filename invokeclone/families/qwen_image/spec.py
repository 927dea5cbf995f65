"""Record classes, identification rules and architectures of Qwen-Image. Does not import torch."""

from typing import Literal

from pydantic import Field

from invokeclone.components.autoencoders import latent_spaces
from invokeclone.graph.vocabulary.architectures import Architecture, ModelDefaults
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, QwenImageVariantType
from invokeclone.models.configs.defaults import MainModelDefaultSettings
from invokeclone.models.configs.kinds import (
    GGUF,
    Checkpoint,
    Diffusers,
    LoRAModel,
    LyCORIS,
    MainModel,
    PiDDecoderModel,
    VAEModel,
)
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Family, Rule, require
from invokeclone.models.identify.signatures import forms, loras, pid, vaes


class _QwenImage(ModelConfig):
    base: Literal[BaseModelType.QwenImage] = BaseModelType.QwenImage


class _Main(MainModel):
    variant: QwenImageVariantType | None = Field(default=None, description="Which published model it is")


class Main_Diffusers_QwenImage_Config(_Main, Diffusers, _QwenImage):
    """Qwen-Image in a folder."""


class Main_Checkpoint_QwenImage_Config(_Main, Checkpoint, _QwenImage):
    """Qwen-Image in one file."""


class Main_GGUF_QwenImage_Config(_Main, GGUF, _QwenImage):
    """Qwen-Image in GGUF format."""


class VAE_Checkpoint_QwenImage_Config(VAEModel, Checkpoint, _QwenImage):
    """Qwen-Image's VAE in one file."""


class PiDDecoder_Checkpoint_QwenImage_Config(PiDDecoderModel, Checkpoint, _QwenImage):
    """A PiD decoder for the latents of Qwen-Image."""


class LoRA_LyCORIS_QwenImage_Config(LoRAModel, LyCORIS, _QwenImage):
    """A LoRA of Qwen-Image in one file."""


_PIPELINES = ("QwenImagePipeline", "QwenImagePlusPipeline", "QwenImageEditPipeline", "QwenImageEditPlusPipeline")
_MARKS = ("txt_in.", "txt_norm.", "img_in.")
_EDIT_MARK = "__index_timestep_zero__"
_is_for_blocks = loras.names_match(r"transformer_blocks[._]\d")
_is_for_others = loras.names_match(
    r"single_transformer_blocks|text_fusion|txtfusion|time_mod_proj|transformer_blocks[._]\d+[._](?:attn2|ff_context|norm1_context)"
)


def _is_transformer(model: ModelFiles) -> None:
    names = model.without_prefixes(*forms.COMFY_PREFIXES)
    require(all(any(name.startswith(mark) for name in names) for mark in _MARKS), "it has no tensors of Qwen-Image")
    require(not any("context_embedder" in name for name in names), "it has tensors that Qwen-Image does not have")


def _variant_of_file(model: ModelFiles) -> QwenImageVariantType:
    edit = any(_EDIT_MARK in name for name in model.tensors) or forms.has_word(model, "edit")
    return QwenImageVariantType.Edit if edit else QwenImageVariantType.Generate


def _variant_of_folder(model: ModelFiles) -> QwenImageVariantType:
    return QwenImageVariantType.Edit if "Edit" in (model.class_name or "") else QwenImageVariantType.Generate


def _default_settings(_: ModelFiles) -> MainModelDefaultSettings:
    return MainModelDefaultSettings(width=1024, height=1024, steps=40, cfg_scale=4)


def _is_lora(model: ModelFiles) -> bool:
    return _is_for_blocks(model) and not _is_for_others(model)


def _file(config: type[ModelConfig], form: ModelFormat) -> Rule:
    detects = {"variant": _variant_of_file, "default_settings": _default_settings}
    return Rule(config=config, recognizes=forms.is_file_of(form, _is_transformer), detectors=detects)


FAMILY = Family(
    rules=(
        Rule(
            config=Main_Diffusers_QwenImage_Config,
            recognizes=forms.is_folder_of(*_PIPELINES),
            detectors={
                "variant": _variant_of_folder,
                "repo_variant": forms.repo_variant,
                "default_settings": _default_settings,
            },
        ),
        _file(Main_Checkpoint_QwenImage_Config, ModelFormat.Checkpoint),
        _file(Main_GGUF_QwenImage_Config, ModelFormat.GGUFQuantized),
        vaes.file_rule(VAE_Checkpoint_QwenImage_Config, BaseModelType.QwenImage),
        pid.rule(PiDDecoder_Checkpoint_QwenImage_Config, BaseModelType.QwenImage),
        loras.rule(LoRA_LyCORIS_QwenImage_Config, _is_lora),
    ),
    architectures=(Architecture(BaseModelType.QwenImage, (latent_spaces.WAN,), ModelDefaults(1024, 1024)),),
)
