"""Record classes, identification rules and architectures of ERNIE-Image. Does not import torch."""

from typing import Literal

from invokeclone.components.autoencoders import latent_spaces
from invokeclone.graph.vocabulary.architectures import Architecture, ModelDefaults
from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.models.configs.defaults import MainModelDefaultSettings
from invokeclone.models.configs.kinds import Diffusers, MainModel
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Family, Rule
from invokeclone.models.identify.signatures import forms


class _ErnieImage(ModelConfig):
    base: Literal[BaseModelType.ErnieImage] = BaseModelType.ErnieImage


class Main_Diffusers_ErnieImage_Config(MainModel, Diffusers, _ErnieImage):
    """ERNIE-Image in a folder."""


def _default_settings(model: ModelFiles) -> MainModelDefaultSettings:
    if "turbo" in model.name.lower():
        return MainModelDefaultSettings(width=1024, height=1024, steps=8, cfg_scale=1)
    return MainModelDefaultSettings(width=1024, height=1024, steps=50, cfg_scale=4)


FAMILY = Family(
    rules=(
        Rule(
            config=Main_Diffusers_ErnieImage_Config,
            recognizes=forms.is_folder_of("ErnieImagePipeline"),
            detectors={"repo_variant": forms.repo_variant, "default_settings": _default_settings},
        ),
    ),
    architectures=(Architecture(BaseModelType.ErnieImage, (latent_spaces.FLUX_2,), ModelDefaults(1024, 1024)),),
)
