"""Record classes, identification rules and architectures of Stable Diffusion 3. Does not import torch."""

from typing import Literal

from pydantic import Field

from invokeclone.components.autoencoders import latent_spaces
from invokeclone.graph.vocabulary.architectures import Architecture, Capabilities, ModelDefaults
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, SubModelType
from invokeclone.models.configs.kinds import Checkpoint, Diffusers, MainModel, PiDDecoderModel, SubmodelDefinition
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Family, Rule, UnsupportedKind
from invokeclone.models.identify.signatures import forms, loras, pid


class _SD3(ModelConfig):
    base: Literal[BaseModelType.StableDiffusion3] = BaseModelType.StableDiffusion3


class Main_Diffusers_SD3_Config(MainModel, Diffusers, _SD3):
    """Stable Diffusion 3 in a folder."""

    submodels: dict[SubModelType, SubmodelDefinition] | None = Field(default=None, description="Submodels")


class PiDDecoder_Checkpoint_SD3_Config(PiDDecoderModel, Checkpoint, _SD3):
    """A PiD decoder for the latents of Stable Diffusion 3."""


_WIDTHS = (1536, 2432)
"""Widths of the transformers of Stable Diffusion 3 medium, 3.5 medium and 3.5 large."""
_has_joint_blocks = loras.names_match(r"joint_blocks[._]\d")
_has_single_blocks = loras.names_match(r"single_transformer_blocks[._]\d")


def _is_file(model: ModelFiles) -> bool:
    names = model.without_prefixes(*forms.COMFY_PREFIXES)
    return any(name.startswith("joint_blocks.") for name in names) and not loras.is_lora(model)


def _is_lora(model: ModelFiles) -> bool:
    weights = loras.weights_of(model)
    if not loras.is_lora(weights) or _has_single_blocks(weights):
        return False
    width = loras.input_of(weights, r"transformer_blocks[._]\d+[._]attn2?[._](?:to|add)_[qkv]")
    return _has_joint_blocks(weights) or width in _WIDTHS


def _is_controlnet(model: ModelFiles) -> bool:
    return model.has_prefix("controlnet_blocks.") and "pos_embed_input.proj.weight" in model.tensors


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
    unsupported=(
        UnsupportedKind("Stable Diffusion 3 in one file; only its folder can be used", _is_file),
        UnsupportedKind("a LoRA of Stable Diffusion 3", _is_lora),
        UnsupportedKind("a ControlNet of Stable Diffusion 3", _is_controlnet),
    ),
)
