"""Record classes, identification rules and architectures of Anima. Does not import torch."""

from typing import Literal

from pydantic import Field

from invokeclone.components.autoencoders import latent_spaces
from invokeclone.graph.vocabulary.architectures import Architecture, ModelDefaults
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat
from invokeclone.models.configs.defaults import MainModelDefaultSettings
from invokeclone.models.configs.kinds import Checkpoint, ControlNetModel, LoRAModel, LyCORIS, MainModel, VAEModel
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Family, Rule, UnsupportedKind, require
from invokeclone.models.identify.signatures import control, forms, loras, vaes


class _Anima(ModelConfig):
    base: Literal[BaseModelType.Anima] = BaseModelType.Anima


class Main_Checkpoint_Anima_Config(MainModel, Checkpoint, _Anima):
    """Anima in one file."""


class VAE_Checkpoint_Anima_Config(VAEModel, Checkpoint, _Anima):
    """Anima's VAE in one file."""


class ControlNet_Checkpoint_Anima_Config(ControlNetModel, Checkpoint, _Anima):
    """A ControlNet of Anima in one file."""

    cond_in_channels: int | None = Field(default=None, description="Channels of the control image")


class LoRA_LyCORIS_Anima_Config(LoRAModel, LyCORIS, _Anima):
    """A LoRA of Anima in one file."""


_LLLITE = ("lllite_conditioning1.", "lllite_dit_")
_FIRST_CONVOLUTION = "lllite_conditioning1.conv1.weight"
_MARKS = ("llm_adapter.", "blocks.", "t_embedder.", "x_embedder.", "final_layer.")
_is_lora = loras.names_match(
    r"(?:llm_adapter|blocks)[._].*(?:[qkv]_proj|output_proj|adaln|mlp[._]layer|llm_adapter)|llm_adapter[._]"
)


def _is_transformer(model: ModelFiles) -> None:
    forms.is_file_stored_as(ModelFormat.Checkpoint)(model)
    names = model.without_prefixes(*forms.COMFY_PREFIXES)
    require(all(any(name.startswith(mark) for name in names) for mark in _MARKS), "it has no tensors of Anima")
    require(not loras.is_lora(model), "it is a LoRA")


def _is_controlnet(model: ModelFiles) -> None:
    require(not model.is_folder, "it is a folder")
    require(model.has_prefix(*_LLLITE), "it has no tensors of a ControlNet of Anima")


def _cond_in_channels(model: ModelFiles) -> int | None:
    declared = model.metadata.get("lllite.cond_in_channels", "")
    if declared.isascii() and declared.isdigit():
        return int(declared)
    first = model.shape(_FIRST_CONVOLUTION)
    return first[1] if len(first) > 1 else None


def _is_old_controlnet(model: ModelFiles) -> bool:
    return model.has_prefix("lllite_modules.")


FAMILY = Family(
    rules=(
        Rule(
            config=Main_Checkpoint_Anima_Config,
            recognizes=_is_transformer,
            detectors={
                "default_settings": lambda _: MainModelDefaultSettings(width=1024, height=1024, steps=35, cfg_scale=4.5)
            },
        ),
        vaes.file_rule(VAE_Checkpoint_Anima_Config, BaseModelType.Anima),
        Rule(
            config=ControlNet_Checkpoint_Anima_Config,
            recognizes=_is_controlnet,
            detectors=control.SETTINGS | {"cond_in_channels": _cond_in_channels},
        ),
        loras.rule(LoRA_LyCORIS_Anima_Config, _is_lora),
    ),
    architectures=(
        Architecture(BaseModelType.Anima, (latent_spaces.ANIMA,), ModelDefaults(1024, 1024), noise_type="Anima"),
    ),
    unsupported=(UnsupportedKind("a ControlNet of Anima in an old format", _is_old_controlnet),),
)
