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
from invokeclone.models.identify.rules import Family, Rule, UnsupportedKind, require
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
_WIDTH = 3072
_is_for_blocks = loras.names_match(r"transformer_blocks[._]\d+[._](?:attn[._]|(?:img|txt)_(?:mlp|mod)[._])")
_is_for_own_layers = loras.names_match(r"transformer_blocks[._]\d+[._](?:img|txt)_(?:mlp|mod)[._]")
_is_for_others = loras.names_match(
    r"single_transformer_blocks|text_fusion|txtfusion|time_mod_proj"
    r"|transformer_blocks[._]\d+[._](?:attn[12][._]|ff[._]|ff_context|norm1|attn[._]to_gate)"
)


def _is_transformer(model: ModelFiles) -> None:
    names = model.without_prefixes(*forms.COMFY_PREFIXES)
    require(all(any(name.startswith(mark) for name in names) for mark in _MARKS), "it has no tensors of Qwen-Image")
    foreign = any("context_embedder" in name or name.startswith("controlnet_") for name in names)
    require(not foreign, "it has tensors that Qwen-Image does not have")
    require(not loras.is_lora(model), "it is a LoRA")


def _is_controlnet(model: ModelFiles) -> bool:
    return model.has_prefix("controlnet_blocks.") and model.has_prefix("txt_norm.")


def _variant_of_file(model: ModelFiles) -> QwenImageVariantType:
    edit = any(_EDIT_MARK in name for name in model.tensors) or forms.has_word(model, "edit")
    return QwenImageVariantType.Edit if edit else QwenImageVariantType.Generate


def _variant_of_folder(model: ModelFiles) -> QwenImageVariantType:
    return QwenImageVariantType.Edit if "Edit" in (model.class_name or "") else QwenImageVariantType.Generate


def _default_settings(_: ModelFiles) -> MainModelDefaultSettings:
    return MainModelDefaultSettings(width=1024, height=1024, steps=40, cfg_scale=4)


def _is_lora(model: ModelFiles) -> bool:
    if not _is_for_blocks(model) or _is_for_others(model):
        return False
    width = loras.input_of(model, r"transformer_blocks[._]\d+[._]attn[._](?:to|add)_[qkv]")
    return width in {None, _WIDTH} or _is_for_own_layers(model)


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
    unsupported=(UnsupportedKind("a ControlNet of Qwen-Image", _is_controlnet),),
)
