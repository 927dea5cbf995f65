"""Record classes and identification rules of Ideogram 4. Does not import torch."""

from typing import Literal

from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.models.configs.defaults import MainModelDefaultSettings
from invokeclone.models.configs.kinds import Diffusers, MainModel
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.identify.rules import Family, Rule
from invokeclone.models.identify.signatures import forms


class _Ideogram4(ModelConfig):
    base: Literal[BaseModelType.Ideogram4] = BaseModelType.Ideogram4


class Main_Diffusers_Ideogram4_Config(MainModel, Diffusers, _Ideogram4):
    """Ideogram 4 in a folder."""


FAMILY = Family(
    rules=(
        Rule(
            config=Main_Diffusers_Ideogram4_Config,
            recognizes=forms.is_folder_of("Ideogram4Pipeline"),
            detectors={
                "repo_variant": forms.repo_variant,
                "default_settings": lambda _: MainModelDefaultSettings(width=1024, height=1024, steps=48, cfg_scale=7),
            },
        ),
    )
)
