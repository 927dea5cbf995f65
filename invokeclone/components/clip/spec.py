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


_WHOLE = "CLIPModel"
_TEXT = (_WHOLE, "CLIPTextModel", "CLIPTextModelWithProjection")
_IMAGE = (_WHOLE, "CLIPVisionModel", "CLIPVisionModelWithProjection")
_TEXT_TOWER, _IMAGE_TOWER = "text_model.", "vision_model."
_FOLDER_OF_PIPELINES = "text_encoder"
_WIDTHS = {768: ClipVariantType.L, 1280: ClipVariantType.G}
_FOLDER = {"repo_variant": forms.repo_variant}


def _is_text_encoder(variant: ClipVariantType) -> Callable[[ModelFiles], None]:
    is_of_class = forms.is_folder_of(*_TEXT)

    def check(model: ModelFiles) -> None:
        encoder = _encoder_folder(model)
        is_of_class(encoder)
        require(encoder.class_name != _WHOLE or _has_tower(encoder, _TEXT_TOWER), "it has no text encoder")
        config = encoder.json("config.json")
        text = config.get("text_config")
        width = forms.number(text if isinstance(text, dict) else config, "hidden_size")
        require(width in _WIDTHS and _WIDTHS[width] is variant, f"its width is {width}")

    return check


def _encoder_folder(model: ModelFiles) -> ModelFiles:
    """Return the folder of the encoder: the model's own, or `text_encoder` if that is the only model in it."""
    inner = model.child(_FOLDER_OF_PIPELINES)
    alone = not any((model.path / name).exists() for name in ("config.json", "model_index.json", "transformer", "unet"))
    return inner if alone and inner.is_folder else model


def _has_tower(model: ModelFiles, prefix: str) -> bool:
    """Return whether the weights of a whole CLIP have tensors with `prefix`; assumed if there are no weights."""
    names = forms.tensor_names(model)
    return not names or any(name.startswith(prefix) for name in names)


def _is_image_encoder(model: ModelFiles) -> None:
    forms.is_folder_of(*_IMAGE)(model)
    if model.class_name == _WHOLE:
        require(isinstance(model.json("config.json").get("vision_config"), dict), "it has no image encoder")
        require(_has_tower(model, _IMAGE_TOWER), "it has no image encoder")


FAMILY = Family(
    rules=(
        Rule(CLIPVision_Diffusers_Config, _is_image_encoder, detectors=_FOLDER),  # first: a whole CLIP has both
        Rule(CLIPEmbed_Diffusers_G_Config, _is_text_encoder(ClipVariantType.G), detectors=_FOLDER),
        Rule(CLIPEmbed_Diffusers_L_Config, _is_text_encoder(ClipVariantType.L), detectors=_FOLDER),
        Rule(SigLIP_Diffusers_Config, forms.is_folder_of("SiglipModel", "SiglipVisionModel"), detectors=_FOLDER),
    )
)
