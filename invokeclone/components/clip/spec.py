"""Record classes and identification rules of CLIP and SigLIP encoders. Does not import torch."""

from collections.abc import Callable
from typing import Literal

from invokeclone.graph.vocabulary.taxonomy import ClipVariantType, ModelType
from invokeclone.models.configs.kinds import CpuOnly, Diffusers, OfAnyBase
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Family, Rule, require
from invokeclone.models.identify.signatures import forms


class CLIPEmbed_Diffusers_G_Config(CpuOnly, Diffusers, OfAnyBase):
    """CLIP-G's text encoder."""

    type: Literal[ModelType.CLIPEmbed] = ModelType.CLIPEmbed
    variant: Literal[ClipVariantType.G] = ClipVariantType.G


class CLIPEmbed_Diffusers_L_Config(CpuOnly, Diffusers, OfAnyBase):
    """CLIP-L's text encoder."""

    type: Literal[ModelType.CLIPEmbed] = ModelType.CLIPEmbed
    variant: Literal[ClipVariantType.L] = ClipVariantType.L


class CLIPVision_Diffusers_Config(CpuOnly, Diffusers, OfAnyBase):
    """A CLIP image encoder."""

    type: Literal[ModelType.CLIPVision] = ModelType.CLIPVision


class SigLIP_Diffusers_Config(CpuOnly, Diffusers, OfAnyBase):
    """A SigLIP image encoder."""

    type: Literal[ModelType.SigLIP] = ModelType.SigLIP


_TEXT = ("CLIPModel", "CLIPTextModel", "CLIPTextModelWithProjection")
_WIDTHS = {768: ClipVariantType.L, 1280: ClipVariantType.G}
_FOLDER = {"repo_variant": forms.repo_variant}


def _is_text_encoder(variant: ClipVariantType) -> Callable[[ModelFiles], None]:
    is_of_class = forms.is_folder_of(*_TEXT)

    def check(model: ModelFiles) -> None:
        is_of_class(model)
        config = model.json("config.json")
        text = config.get("text_config")
        width = forms.number(text if isinstance(text, dict) else config, "hidden_size")
        require(width in _WIDTHS and _WIDTHS[width] is variant, f"its width is {width}")

    return check


def _is_image_encoder(model: ModelFiles) -> None:
    forms.is_folder_of("CLIPVisionModelWithProjection", "CLIPVisionModel", "CLIPModel")(model)
    whole = model.class_name == "CLIPModel"
    require(not whole or isinstance(model.json("config.json").get("vision_config"), dict), "it has no vision part")


FAMILY = Family(
    rules=(
        Rule(CLIPEmbed_Diffusers_G_Config, _is_text_encoder(ClipVariantType.G), detectors=_FOLDER),
        Rule(CLIPEmbed_Diffusers_L_Config, _is_text_encoder(ClipVariantType.L), detectors=_FOLDER),
        Rule(CLIPVision_Diffusers_Config, _is_image_encoder, detectors=_FOLDER),
        Rule(SigLIP_Diffusers_Config, forms.is_folder_of("SiglipModel", "SiglipVisionModel"), detectors=_FOLDER),
    )
)
