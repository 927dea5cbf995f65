"""Record classes, identification rules and architectures of FLUX.2. Does not import torch."""

from dataclasses import replace
from typing import Literal

from pydantic import Field

from invokeclone.components.autoencoders import latent_spaces
from invokeclone.graph.vocabulary.architectures import Architecture, Capabilities, ModelDefaults, ModelKind
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, Flux2VariantType, ModelFormat
from invokeclone.models.configs.defaults import MainModelDefaultSettings
from invokeclone.models.configs.kinds import (
    GGUF,
    Checkpoint,
    Diffusers,
    LoRAFolder,
    LoRAModel,
    LyCORIS,
    MainModel,
    PiDDecoderModel,
    SDNQFile,
    SDNQFolder,
    VAEModel,
)
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Family, Rule, UnsupportedKind
from invokeclone.models.identify.signatures import forms, loras, pid, vaes
from invokeclone.models.identify.signatures.flux import (
    base_of_lora,
    context_width,
    is_flux2_lora,
    is_flux_lora,
    lora_context,
    lora_hidden,
    require_transformer,
)


class _Flux2(ModelConfig):
    base: Literal[BaseModelType.Flux2] = BaseModelType.Flux2


class _Main(MainModel):
    variant: Flux2VariantType = Field(description="Which published model it is")


class Main_Diffusers_Flux2_Config(_Main, Diffusers, _Flux2):
    """FLUX.2 in a folder."""


class Main_Checkpoint_Flux2_Config(_Main, Checkpoint, _Flux2):
    """FLUX.2 in one file."""


class Main_GGUF_Flux2_Config(_Main, GGUF, _Flux2):
    """FLUX.2 in GGUF format."""


class Main_SDNQ_Flux2_Config(_Main, SDNQFile, _Flux2):
    """FLUX.2 in one file quantized by SDNQ."""


class Main_SDNQ_Diffusers_Flux2_Config(_Main, SDNQFolder, _Flux2):
    """FLUX.2 in a folder quantized by SDNQ."""


class VAE_Checkpoint_Flux2_Config(VAEModel, Checkpoint, _Flux2):
    """FLUX.2's VAE in one file."""


class VAE_Diffusers_Flux2_Config(VAEModel, Diffusers, _Flux2):
    """FLUX.2's VAE in a folder."""


class PiDDecoder_Checkpoint_Flux2_Config(PiDDecoderModel, Checkpoint, _Flux2):
    """A PiD decoder for the latents of FLUX.2."""


class LoRA_LyCORIS_Flux2_Config(LoRAModel, LyCORIS, _Flux2):
    """A LoRA of FLUX.2 in one file."""

    variant: Flux2VariantType | None = Field(default=None, description="Which published model it is")


class LoRA_Diffusers_Flux2_Config(LoRAModel, LoRAFolder, _Flux2):
    """A LoRA of FLUX.2 in a folder."""

    variant: Flux2VariantType | None = Field(default=None, description="Which published model it is")


_PIPELINES = ("Flux2KleinPipeline", "Flux2Pipeline", "Flux2Transformer2DModel")
_OF_CONTEXT = {7680: Flux2VariantType.Klein4B, 12288: Flux2VariantType.Klein9B, 15360: Flux2VariantType.Dev}
_OF_HIDDEN = {3072: Flux2VariantType.Klein4B, 4096: Flux2VariantType.Klein9B, 6144: Flux2VariantType.Dev}
_UNDISTILLED = {
    Flux2VariantType.Klein4B: Flux2VariantType.Klein4BBase,
    Flux2VariantType.Klein9B: Flux2VariantType.Klein9BBase,
}
_SETTINGS = {
    Flux2VariantType.Dev: MainModelDefaultSettings(width=1024, height=1024, steps=28, cfg_scale=1, guidance=3.5),
    Flux2VariantType.Klein4B: MainModelDefaultSettings(width=1024, height=1024, steps=4, cfg_scale=1),
    Flux2VariantType.Klein9B: MainModelDefaultSettings(width=1024, height=1024, steps=4, cfg_scale=1),
    Flux2VariantType.Klein4BBase: MainModelDefaultSettings(width=1024, height=1024, steps=28, cfg_scale=1),
    Flux2VariantType.Klein9BBase: MainModelDefaultSettings(width=1024, height=1024, steps=28, cfg_scale=1),
}


def _is_transformer(model: ModelFiles) -> None:
    require_transformer(model, flux2=True)


def _resolve_distillation(model: ModelFiles, variant: Flux2VariantType) -> Flux2VariantType:
    return _UNDISTILLED.get(variant, variant) if "base" in model.name.lower() else variant


def _variant_of_file(model: ModelFiles) -> Flux2VariantType:
    return _resolve_distillation(model, _OF_CONTEXT.get(context_width(model), Flux2VariantType.Klein4B))


def _variant_of_folder(model: ModelFiles) -> Flux2VariantType:
    width = forms.number(forms.part_config(model, "transformer"), "joint_attention_dim") or 0
    variant = _OF_CONTEXT.get(width)
    fallback = Flux2VariantType.Dev if model.class_name == "Flux2Pipeline" else Flux2VariantType.Klein4B
    return _resolve_distillation(model, variant or fallback)


def _is_lora(model: ModelFiles) -> bool:
    return is_flux_lora(model) and is_flux2_lora(model) is not False


def _variant_of_lora(model: ModelFiles) -> Flux2VariantType | None:
    return _OF_CONTEXT.get(lora_context(model) or 0) or _OF_HIDDEN.get(lora_hidden(model) or 0)


def _file(config: type[ModelConfig], form: ModelFormat) -> Rule:
    detects = {"variant": _variant_of_file, "default_settings": forms.settings_of(_variant_of_file, _SETTINGS)}
    return Rule(config=config, recognizes=forms.is_file_of(form, _is_transformer), detectors=detects)


_OF_FOLDER = {
    "variant": _variant_of_folder,
    "repo_variant": forms.repo_variant,
    "default_settings": forms.settings_of(_variant_of_folder, _SETTINGS),
}

_CAPABILITIES = Capabilities(
    schedulers=("euler", "heun", "lcm"),
    image_to_image=True,
    inpaint=True,
    hires_fix=True,
    partial_denoise=True,
    lora=True,
    reference_images=4,
    reads_references=True,
    regional_prompts=True,
    separate_vae=True,
)

FAMILY = Family(
    rules=(
        Rule(config=Main_Diffusers_Flux2_Config, recognizes=forms.is_pipeline_of(*_PIPELINES), detectors=_OF_FOLDER),
        _file(Main_Checkpoint_Flux2_Config, ModelFormat.Checkpoint),
        _file(Main_GGUF_Flux2_Config, ModelFormat.GGUFQuantized),
        _file(Main_SDNQ_Flux2_Config, ModelFormat.SDNQQuantized),
        Rule(
            config=Main_SDNQ_Diffusers_Flux2_Config,
            recognizes=forms.is_pipeline_of(*_PIPELINES, sdnq=True),
            detectors=_OF_FOLDER | {"submodels": forms.submodels},
        ),
        vaes.file_rule(VAE_Checkpoint_Flux2_Config, BaseModelType.Flux2),
        Rule(
            config=VAE_Diffusers_Flux2_Config,
            recognizes=forms.is_folder_of("AutoencoderKLFlux2"),
            detectors={"repo_variant": forms.repo_variant},
        ),
        pid.rule(PiDDecoder_Checkpoint_Flux2_Config, BaseModelType.Flux2),
        loras.rule(LoRA_LyCORIS_Flux2_Config, _is_lora, base_of_lora, base_is_guess=True, variant=_variant_of_lora),
        loras.rule(LoRA_Diffusers_Flux2_Config, _is_lora, base_of_lora, base_is_guess=True, variant=_variant_of_lora),
    ),
    architectures=(
        Architecture(
            BaseModelType.Flux2,
            (latent_spaces.FLUX_2,),
            ModelDefaults(1024, 1024, steps=4, guidance=1.0),
            _CAPABILITIES,
            kinds=(
                ModelKind(
                    replace(_CAPABILITIES, guidance="distilled", reference_images=10), variant=Flux2VariantType.Dev
                ),
            ),
            variant_defaults={
                **dict.fromkeys(_UNDISTILLED.values(), ModelDefaults(1024, 1024, steps=28, guidance=1.0)),
                Flux2VariantType.Dev: ModelDefaults(1024, 1024, steps=28, guidance=3.5),
            },
            noise_type="FLUX.2",
        ),
    ),
    unsupported=(
        UnsupportedKind(
            "FLUX.2 in bitsandbytes' 4 bits in one file; use GGUF, 8-bit floats, SDNQ, or a folder",
            forms.is_four_bit_file_of(_is_transformer),
        ),
    ),
)
