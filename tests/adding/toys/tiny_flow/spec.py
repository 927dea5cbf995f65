"""What a tiny flow model looks like on disk and what it can do. It borrows the base `unknown`, which no family has."""

from typing import Literal

from invokeclone.components.autoencoders.latent_spaces import STABLE_DIFFUSION
from invokeclone.graph.vocabulary.architectures import Architecture, Capabilities, LatentSpace, ModelDefaults
from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.models.configs.kinds import Diffusers, MainModel
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.identify.rules import Family, Rule
from invokeclone.models.identify.signatures import forms

BASE = BaseModelType.Unknown


class Main_Diffusers_TinyFlow_Config(MainModel, Diffusers, ModelConfig):
    """A tiny flow model in a folder."""

    base: Literal[BaseModelType.Unknown] = BASE


FAMILY = Family(
    rules=(
        Rule(
            config=Main_Diffusers_TinyFlow_Config,
            recognizes=forms.is_folder_of("TinyFlowPipeline"),
            base=lambda _: BASE,
            detectors={"repo_variant": forms.repo_variant},
        ),
    ),
    architectures=(
        Architecture(
            BASE,
            (LatentSpace(channels=4, packing=2, grid=16, preview=STABLE_DIFFUSION.preview),),
            ModelDefaults(96, 64, steps=4, guidance=3.0),
            Capabilities(image_to_image=True, inpaint=True, hires_fix=True),
        ),
    ),
)
