"""Record classes, identification rules and architectures of Krea-2. Does not import torch."""

from typing import Literal

from pydantic import Field

from invokeclone.components.autoencoders import latent_spaces
from invokeclone.graph.vocabulary.architectures import Architecture, ModelDefaults
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, Krea2VariantType, ModelFormat
from invokeclone.models.configs.defaults import MainModelDefaultSettings
from invokeclone.models.configs.kinds import GGUF, Checkpoint, Diffusers, LoRAModel, LyCORIS, MainModel
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Family, Rule, require
from invokeclone.models.identify.signatures import forms, loras


class _Krea2(ModelConfig):
    base: Literal[BaseModelType.Krea2] = BaseModelType.Krea2


class _Main(MainModel):
    variant: Krea2VariantType = Field(description="Which published model it is")


class Main_Diffusers_Krea2_Config(_Main, Diffusers, _Krea2):
    """Krea-2 in a folder."""


class Main_Checkpoint_Krea2_Config(_Main, Checkpoint, _Krea2):
    """Krea-2 in one file."""


class Main_GGUF_Krea2_Config(_Main, GGUF, _Krea2):
    """Krea-2 in GGUF format."""


class LoRA_LyCORIS_Krea2_Config(LoRAModel, LyCORIS, _Krea2):
    """A LoRA of Krea-2 in one file."""


_MARKS = {"text_fusion", "txtfusion", "time_mod_proj"}
_LAYERS = {"img_in", "first", "tproj"}
_is_lora = loras.names_match(
    r"(?:text_fusion|txtfusion|time_mod_proj)|transformer_blocks[._]\d+[._](?:attn[._]to_gate|ff[._](?:gate|up|down))"
    r"|blocks[._]\d+[._](?:attn[._](?:w[qkvo]|gate)|mlp[._](?:gate|up|down))"
)
_SETTINGS = {
    Krea2VariantType.Turbo: MainModelDefaultSettings(width=1024, height=1024, steps=8, cfg_scale=1),
    Krea2VariantType.Base: MainModelDefaultSettings(width=1024, height=1024, steps=28, cfg_scale=5.5),
}


def _is_transformer(model: ModelFiles) -> None:
    parts = {part for name in model.tensors for part in name.split(".")}
    require(parts & _MARKS and parts & _LAYERS, "it has no tensors of Krea-2")
    require(not loras.is_lora(model), "it is a LoRA")


def _variant_of_file(model: ModelFiles) -> Krea2VariantType:
    return Krea2VariantType.Base if forms.has_word(model, "raw", "base") else Krea2VariantType.Turbo


def _variant_of_folder(model: ModelFiles) -> Krea2VariantType:
    distilled = model.json("model_index.json").get("is_distilled", model.json("config.json").get("is_distilled"))
    if distilled is None:
        return _variant_of_file(model)
    return Krea2VariantType.Turbo if distilled else Krea2VariantType.Base


def _file(config: type[ModelConfig], form: ModelFormat) -> Rule:
    detects = {"variant": _variant_of_file, "default_settings": forms.settings_of(_variant_of_file, _SETTINGS)}
    return Rule(config=config, recognizes=forms.is_file_of(form, _is_transformer), detectors=detects)


FAMILY = Family(
    rules=(
        Rule(
            config=Main_Diffusers_Krea2_Config,
            recognizes=forms.is_folder_of("Krea2Pipeline"),
            detectors={
                "variant": _variant_of_folder,
                "repo_variant": forms.repo_variant,
                "default_settings": forms.settings_of(_variant_of_folder, _SETTINGS),
            },
        ),
        _file(Main_Checkpoint_Krea2_Config, ModelFormat.Checkpoint),
        _file(Main_GGUF_Krea2_Config, ModelFormat.GGUFQuantized),
        loras.rule(LoRA_LyCORIS_Krea2_Config, _is_lora),
    ),
    architectures=(Architecture(BaseModelType.Krea2, (latent_spaces.WAN,), ModelDefaults(1024, 1024)),),
)
