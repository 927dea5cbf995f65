"""Record classes, identification rules and architectures of CogView4. Does not import torch."""

from typing import Literal

from invokeclone.components.autoencoders import latent_spaces
from invokeclone.graph.vocabulary.architectures import Architecture, Capabilities, ModelDefaults
from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.models.configs.kinds import Diffusers, MainModel
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.identify.rules import Family, Rule
from invokeclone.models.identify.signatures import forms


class _CogView4(ModelConfig):
    base: Literal[BaseModelType.CogView4] = BaseModelType.CogView4


class Main_Diffusers_CogView4_Config(MainModel, Diffusers, _CogView4):
    """CogView4 in a folder."""


FAMILY = Family(
    rules=(
        Rule(
            config=Main_Diffusers_CogView4_Config,
            recognizes=forms.is_folder_of("CogView4Pipeline"),
            detectors={"repo_variant": forms.repo_variant},
        ),
    ),
    architectures=(
        Architecture(
            BaseModelType.CogView4,
            (latent_spaces.COGVIEW4,),
            ModelDefaults(1024, 1024, steps=30, guidance=3.5),
            Capabilities(image_to_image=True, inpaint=True, hires_fix=True),
            noise_type="CogView4",
        ),
    ),
)
