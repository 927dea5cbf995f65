"""Record classes, identification rules and architectures of Stable Diffusion 3. Does not import torch."""

from typing import Literal

from pydantic import Field

from invokeclone.components.autoencoders import latent_spaces
from invokeclone.graph.vocabulary.architectures import Architecture, Capabilities, ModelDefaults
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, SubModelType
from invokeclone.models.configs.kinds import Checkpoint, Diffusers, MainModel, PiDDecoderModel, SubmodelDefinition
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.identify.rules import Family, Rule
from invokeclone.models.identify.signatures import forms, pid


class _SD3(ModelConfig):
    base: Literal[BaseModelType.StableDiffusion3] = BaseModelType.StableDiffusion3


class Main_Diffusers_SD3_Config(MainModel, Diffusers, _SD3):
    """Stable Diffusion 3 in a folder."""

    submodels: dict[SubModelType, SubmodelDefinition] | None = Field(default=None, description="Submodels")


class PiDDecoder_Checkpoint_SD3_Config(PiDDecoderModel, Checkpoint, _SD3):
    """A PiD decoder for the latents of Stable Diffusion 3."""


FAMILY = Family(
    rules=(
        Rule(
            config=Main_Diffusers_SD3_Config,
            recognizes=forms.is_folder_of("StableDiffusion3Pipeline", "SD3Transformer2DModel"),
            detectors={"repo_variant": forms.repo_variant, "submodels": forms.submodels},
        ),
        pid.rule(PiDDecoder_Checkpoint_SD3_Config, BaseModelType.StableDiffusion3),
    ),
    architectures=(
        Architecture(
            BaseModelType.StableDiffusion3,
            (latent_spaces.STABLE_DIFFUSION_3,),
            ModelDefaults(1024, 1024, steps=30, guidance=3.5),
            Capabilities(image_to_image=True, inpaint=True, hires_fix=True),
            noise_type="SD3",
        ),
    ),
)
