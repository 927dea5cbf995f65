"""Rules for autoencoders: the base by the first layer of the decoder, and by name where that is ambiguous."""

from collections.abc import Callable, Mapping
from typing import Any

from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Rule, require
from invokeclone.models.identify.signatures import forms, loras

_PREFIX = "first_stage_model."
"""Prefix of tensor names in autoencoders that were cut out of a checkpoint."""

_WHOLE = ("model.diffusion_model.", "cond_stage_model.", "conditioner.", "text_encoders.")
_NAMES = ("encoder.conv_in", "decoder.conv_in")
_NATIVE_NAMES = ("encoder.downsamples", "decoder.upsamples", "decoder.middle")
_SDXL_SCALING = 0.13025
_SDXL_EDGES = (512, 1024)
_SD_CHANNELS, _FLUX_CHANNELS, _FLUX2_CHANNELS, _WAN_2_2_CHANNELS = 4, 16, 32, 48
_PLANE, _VOLUME = 4, 5


def file_rule(
    config: type[ModelConfig], base: BaseModelType, detectors: Mapping[str, Callable[[ModelFiles], Any]] | None = None
) -> Rule:
    """Return the rule for a single file of `base`; among architectures with the same tensors, the base is a guess."""

    def recognizes(model: ModelFiles) -> None:
        require(not model.is_folder, "it is a folder")
        require(_has_names(model, *_NAMES, *_NATIVE_NAMES), "it has no tensors of a VAE")
        require(not model.has_prefix(*_WHOLE), "it is a whole checkpoint")
        require(not loras.is_lora(model), "it is a LoRA")
        require(base in _bases(model), f"the first tensor of its decoder has shape {_first_decoder_shape(model)}")

    return Rule(config=config, recognizes=recognizes, base=_base_of_file, detectors=detectors or {}, base_is_guess=True)


def _has_names(model: ModelFiles, *beginnings: str) -> bool:
    return any(name.startswith(beginnings) for name in model.without_prefixes(_PREFIX))


def _first_decoder_shape(model: ModelFiles) -> tuple[int, ...]:
    names = model.without_prefixes(_PREFIX)
    first = names.get("decoder.conv_in.weight") or names.get("decoder.conv1.weight")
    return first.shape if first else ()


def latent_channels(model: ModelFiles) -> int:
    """Return the number of latent channels of a VAE file."""
    shape = _first_decoder_shape(model)
    require(len(shape) > 1, "it has no decoder")
    return shape[1]


def _bases(model: ModelFiles) -> tuple[BaseModelType, ...]:
    """Return the architectures that the tensors are compatible with, most likely first."""
    shape = _first_decoder_shape(model)
    channels = shape[1] if len(shape) > 1 else 0
    if _has_names(model, "bn.running_") or (len(shape) == _PLANE and channels == _FLUX2_CHANNELS):
        return (BaseModelType.Flux2,)
    if _has_names(model, *_NATIVE_NAMES):
        wan_only = channels == _WAN_2_2_CHANNELS
        return (BaseModelType.Wan,) if wan_only else (BaseModelType.Anima, BaseModelType.Wan, BaseModelType.QwenImage)
    if len(shape) == _VOLUME:
        volumes = {
            _FLUX_CHANNELS: (BaseModelType.QwenImage, BaseModelType.Wan),
            _WAN_2_2_CHANNELS: (BaseModelType.Wan,),
        }
        return volumes.get(channels, ())
    sd = (BaseModelType.StableDiffusion1, BaseModelType.StableDiffusion2, BaseModelType.StableDiffusionXL)
    planes = {_SD_CHANNELS: sd, _FLUX_CHANNELS: (BaseModelType.Flux,)}
    return planes.get(channels, ()) if len(shape) == _PLANE else ()


_HINTS = {
    "wan": BaseModelType.Wan,
    "qwen": BaseModelType.QwenImage,
    "xl": BaseModelType.StableDiffusionXL,
    "sd2": BaseModelType.StableDiffusion2,
}


def _base_of_file(model: ModelFiles) -> BaseModelType | None:
    possible, name = _bases(model), model.name.lower()
    hinted = (base for hint, base in _HINTS.items() if hint in name and base in possible)
    return next(hinted, possible[0] if possible else None)


def kl_rule(config: type[ModelConfig]) -> Rule:
    """Return the rule for a folder with an autoencoder of Stable Diffusion."""
    return Rule(
        config=config,
        recognizes=_is_kl_folder,
        base=_base_of_kl_folder,
        detectors={"repo_variant": forms.repo_variant},
        base_is_guess=True,
    )


def _is_kl_folder(model: ModelFiles) -> None:
    forms.is_folder_of("AutoencoderKL", "AutoencoderTiny")(model)
    channels = model.json("config.json").get("latent_channels", _SD_CHANNELS)
    require(channels == _SD_CHANNELS, f"its latents have {channels} channels")


def _base_of_kl_folder(model: ModelFiles) -> BaseModelType:
    config = model.json("config.json")
    sdxl = config.get("scaling_factor") == _SDXL_SCALING and config.get("sample_size") in _SDXL_EDGES
    if sdxl or model.name.lower().endswith("xl"):
        return BaseModelType.StableDiffusionXL
    return BaseModelType.StableDiffusion1
