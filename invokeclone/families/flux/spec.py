"""Record classes, identification rules and architectures of FLUX.1. Does not import torch."""

from dataclasses import replace
from typing import Literal

from pydantic import Field

from invokeclone.components.autoencoders import latent_spaces
from invokeclone.graph.vocabulary.architectures import Architecture, Capabilities, ModelDefaults, ModelKind
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, FluxVariantType, ModelFormat, ModelType
from invokeclone.models.configs.kinds import (
    GGUF,
    OMI,
    BnBNF4,
    Checkpoint,
    ControlLoRAModel,
    ControlNetModel,
    Diffusers,
    IPAdapterModel,
    LoRAFolder,
    LoRAModel,
    LyCORIS,
    MainModel,
    PiDDecoderModel,
    PlainCheckpoint,
    SDNQFile,
    SDNQFolder,
    VAEModel,
)
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Family, Rule, UnsupportedKind, require
from invokeclone.models.identify.signatures import control, forms, loras, pid, vaes
from invokeclone.models.identify.signatures.flux import (
    base_of_lora,
    is_flux2_lora,
    is_flux_lora,
    latent_width,
    require_transformer,
)


class _FLUX(ModelConfig):
    base: Literal[BaseModelType.Flux] = BaseModelType.Flux


class _Main(MainModel):
    variant: FluxVariantType = Field(description="Which published model it is")


class Main_Diffusers_FLUX_Config(_Main, Diffusers, _FLUX):
    """FLUX.1 in a folder."""


class Main_Checkpoint_FLUX_Config(_Main, Checkpoint, _FLUX):
    """FLUX.1 in one file."""


class Main_BnBNF4_FLUX_Config(_Main, BnBNF4, _FLUX):
    """FLUX.1 quantized by bitsandbytes."""


class Main_GGUF_FLUX_Config(_Main, GGUF, _FLUX):
    """FLUX.1 in GGUF format."""


class Main_SDNQ_FLUX_Config(_Main, SDNQFile, _FLUX):
    """FLUX.1 in one file quantized by SDNQ."""


class Main_SDNQ_Diffusers_FLUX_Config(_Main, SDNQFolder, _FLUX):
    """FLUX.1 in a folder quantized by SDNQ."""


class VAE_Checkpoint_FLUX_Config(VAEModel, Checkpoint, _FLUX):
    """FLUX.1's VAE in one file."""


class PiDDecoder_Checkpoint_FLUX_Config(PiDDecoderModel, Checkpoint, _FLUX):
    """A PiD decoder for the latents of FLUX.1."""


class ControlNet_Checkpoint_FLUX_Config(ControlNetModel, Checkpoint, _FLUX):
    """A ControlNet of FLUX.1 in one file."""


class ControlNet_Diffusers_FLUX_Config(ControlNetModel, Diffusers, _FLUX):
    """A ControlNet of FLUX.1 in a folder."""


class LoRA_LyCORIS_FLUX_Config(LoRAModel, LyCORIS, _FLUX):
    """A LoRA of FLUX.1 in one file."""


class LoRA_OMI_FLUX_Config(LoRAModel, OMI, _FLUX):
    """A LoRA of FLUX.1 with the Open Model Initiative's names."""


class LoRA_Diffusers_FLUX_Config(LoRAModel, LoRAFolder, _FLUX):
    """A LoRA of FLUX.1 in a folder."""


class ControlLoRA_LyCORIS_FLUX_Config(ControlLoRAModel, LyCORIS, _FLUX):
    """A control LoRA of FLUX.1."""


class IPAdapter_Checkpoint_FLUX_Config(IPAdapterModel, PlainCheckpoint, _FLUX):
    """An IP-Adapter of FLUX.1 in one file."""


class FLUXRedux_Checkpoint_Config(PlainCheckpoint, _FLUX):
    """FLUX Redux, which turns an image into prompt embeddings."""

    type: Literal[ModelType.FluxRedux] = ModelType.FluxRedux


_FILL_CHANNELS = 384
_REDUX = {"redux_up.weight", "redux_up.bias", "redux_down.weight", "redux_down.bias"}
_PIPELINES = (
    "FluxPipeline",
    "FluxFillPipeline",
    "FluxKontextPipeline",
    "FluxControlPipeline",
    "FluxTransformer2DModel",
)
_XLABS = ("input_hint_block.", "pos_embed_input.")
_LATENTS = 64
_CONTROL_INPUT = 2 * _LATENTS
_CHROMA = "distilled_guidance_layer."
_CHROMA_CLASSES = ("ChromaPipeline", "ChromaTransformer2DModel")
_is_hunyuan_lora = loras.names_match(
    r"double_blocks\.\d+\.img_attn_qkv\.|double_blocks[._]\d+[._](?:img|txt)_mlp[._]fc[12]"
)


def _is_transformer(model: ModelFiles) -> None:
    require_transformer(model, flux2=False)


def _is_chroma(model: ModelFiles) -> bool:
    return model.class_name in _CHROMA_CLASSES or any(_CHROMA in name for name in model.tensors)


def _variant_of_file(model: ModelFiles) -> FluxVariantType:
    names = model.without_prefixes(*forms.COMFY_PREFIXES)
    if not any(name.startswith("guidance_in.out_layer.weight") for name in names):
        return FluxVariantType.Schnell
    return FluxVariantType.DevFill if latent_width(model) == _FILL_CHANNELS else FluxVariantType.Dev


def _variant_of_folder(model: ModelFiles) -> FluxVariantType:
    config = forms.part_config(model, "transformer")
    if forms.number(config, "in_channels") == _FILL_CHANNELS:
        return FluxVariantType.DevFill
    return FluxVariantType.Dev if config.get("guidance_embeds") else FluxVariantType.Schnell


def _is_controlnet(model: ModelFiles) -> None:
    require(not model.is_folder, "it is a folder")
    xlabs = all(model.has_prefix(prefix) for prefix in _XLABS)
    require(xlabs or "controlnet_x_embedder.weight" in model.tensors, "it has no tensors of a ControlNet of FLUX.1")
    require(not model.has_prefix("txt_norm."), "it is a ControlNet of Qwen-Image")


def _is_control_lora(model: ModelFiles) -> bool:
    return loras.input_of(model, r"\bimg_in\b") == _CONTROL_INPUT and not is_flux2_lora(model)


def _is_lora(model: ModelFiles) -> bool:
    return is_flux_lora(model) and is_flux2_lora(model) is not True and not _is_control_lora(model)


def _is_ip_adapter(model: ModelFiles) -> None:
    require(not model.is_folder and control.is_flux_ip_adapter(model), "it has no tensors of an IP-Adapter of FLUX.1")


def _is_redux(model: ModelFiles) -> None:
    require(not model.is_folder and set(model.tensors) == _REDUX, "its tensors are not those of FLUX Redux")


def _file(config: type[ModelConfig], form: ModelFormat) -> Rule:
    return Rule(
        config=config, recognizes=forms.is_file_of(form, _is_transformer), detectors={"variant": _variant_of_file}
    )


_CAPABILITIES = Capabilities(
    guidance="distilled",
    schedulers=("euler", "heun", "lcm"),
    image_to_image=True,
    inpaint=True,
    hires_fix=True,
    partial_denoise=True,
    lora=True,
    control=True,
    reference_images=16,
    style_images=True,
    regional_prompts=True,
    separate_vae=True,
)
_KINDS = (
    ModelKind(
        replace(
            _CAPABILITIES,
            text_to_image=False,
            image_to_image=False,
            hires_fix=False,
            partial_denoise=False,
            control=False,
            reference_images=0,
        ),
        variant=FluxVariantType.DevFill,
    ),
    ModelKind(replace(_CAPABILITIES, reference_images=4, reads_references=True), name_part="kontext"),
)
"""FLUX.1 Fill only repaints parts of images. FLUX.1 Kontext has the same tensors as dev, so that only the name tells."""

_OF_FOLDER = {"variant": _variant_of_folder, "repo_variant": forms.repo_variant}

FAMILY = Family(
    rules=(
        Rule(
            config=Main_Diffusers_FLUX_Config,
            recognizes=forms.is_pipeline_of(*_PIPELINES),
            detectors=_OF_FOLDER,
        ),
        _file(Main_Checkpoint_FLUX_Config, ModelFormat.Checkpoint),
        _file(Main_BnBNF4_FLUX_Config, ModelFormat.BnbQuantizednf4b),
        _file(Main_GGUF_FLUX_Config, ModelFormat.GGUFQuantized),
        _file(Main_SDNQ_FLUX_Config, ModelFormat.SDNQQuantized),
        Rule(
            config=Main_SDNQ_Diffusers_FLUX_Config,
            recognizes=forms.is_pipeline_of(*_PIPELINES, sdnq=True),
            detectors=_OF_FOLDER | {"submodels": forms.submodels},
        ),
        vaes.file_rule(VAE_Checkpoint_FLUX_Config, BaseModelType.Flux),
        pid.rule(PiDDecoder_Checkpoint_FLUX_Config, BaseModelType.Flux),
        Rule(config=ControlNet_Checkpoint_FLUX_Config, recognizes=_is_controlnet, detectors=control.SETTINGS),
        Rule(
            config=ControlNet_Diffusers_FLUX_Config,
            recognizes=forms.is_folder_of("FluxControlNetModel"),
            detectors=control.FOLDER,
        ),
        loras.rule(LoRA_LyCORIS_FLUX_Config, _is_lora, base_of_lora, base_is_guess=True),
        loras.rule(LoRA_Diffusers_FLUX_Config, _is_lora, base_of_lora, base_is_guess=True),
        loras.omi_rule(LoRA_OMI_FLUX_Config),
        loras.rule(ControlLoRA_LyCORIS_FLUX_Config, _is_control_lora, default_settings=control.control_settings),
        Rule(config=IPAdapter_Checkpoint_FLUX_Config, recognizes=_is_ip_adapter),
        Rule(config=FLUXRedux_Checkpoint_Config, recognizes=_is_redux),
    ),
    architectures=(
        Architecture(
            BaseModelType.Flux,
            (latent_spaces.FLUX,),
            ModelDefaults(1024, 1024, steps=28, guidance=3.5),
            _CAPABILITIES,
            kinds=_KINDS,
            variant_defaults={FluxVariantType.Schnell: ModelDefaults(1024, 1024, steps=4, guidance=3.5)},
            noise_type="FLUX",
        ),
    ),
    unsupported=(
        UnsupportedKind("Chroma, or a LoRA of Chroma", _is_chroma),
        UnsupportedKind("a LoRA of HunyuanVideo", _is_hunyuan_lora),
    ),
)
