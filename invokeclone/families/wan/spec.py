"""Record classes, identification rules and architectures of Wan. Does not import torch."""

from typing import Literal

from pydantic import Field

from invokeclone.components.autoencoders import latent_spaces
from invokeclone.graph.vocabulary.architectures import Architecture, ModelDefaults
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, WanLoRAVariantType, WanVariantType
from invokeclone.models.configs.defaults import MainModelDefaultSettings
from invokeclone.models.configs.kinds import GGUF, Checkpoint, Diffusers, LoRAModel, LyCORIS, MainModel, VAEModel
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Family, Rule, UnsupportedKind, require
from invokeclone.models.identify.signatures import forms, loras, vaes


class _Wan(ModelConfig):
    base: Literal[BaseModelType.Wan] = BaseModelType.Wan


class _Main(MainModel):
    variant: WanVariantType = Field(description="Which published model it is")


class Main_Diffusers_Wan_Config(_Main, Diffusers, _Wan):
    """Wan in a folder."""

    has_dual_expert: bool = Field(default=False, description="Whether it has separate denoisers for high and low noise")
    boundary_ratio: float | None = Field(
        default=None, description="Noise level at which the low-noise denoiser takes over"
    )


class Main_Checkpoint_Wan_Config(_Main, Checkpoint, _Wan):
    """Wan in one file."""

    expert: Literal["high", "low", "none"] = Field(default="none", description="Noise levels it was trained for")


class Main_GGUF_Wan_Config(_Main, GGUF, _Wan):
    """Wan in GGUF format."""

    expert: Literal["high", "low", "none"] = Field(default="none", description="Noise levels it was trained for")


class VAE_Checkpoint_Wan_Config(VAEModel, Checkpoint, _Wan):
    """Wan's VAE in one file."""

    latent_channels: Literal[16, 48] = Field(description="Number of latent channels")


class VAE_Diffusers_Wan_Config(VAEModel, Diffusers, _Wan):
    """Wan's VAE in a folder."""

    latent_channels: Literal[16, 48] = Field(default=16, description="Number of latent channels")


class LoRA_LyCORIS_Wan_Config(LoRAModel, LyCORIS, _Wan):
    """A LoRA of Wan in one file."""

    variant: WanLoRAVariantType | None = Field(default=None, description="Which published model it is")
    expert: Literal["high", "low"] | None = Field(default=None, description="Noise levels it was trained for")


_PATCHES: dict[tuple[int, ...], WanVariantType] = {
    (5120, 16): WanVariantType.T2V_A14B,
    (5120, 36): WanVariantType.I2V_A14B,
    (3072, 48): WanVariantType.TI2V_5B,
}
_TEXT = ("text_embedding.", "condition_embedder.text_embedder.", "text_embedder.")
_OTHER_KINDS = ("vace_", "img_emb.", "face_adapter.", "motion_encoder.", "casual_audio_encoder.", "ref_conv.", "audio_")
_OTHER_WORDS = ("wan21", "vace", "s2v", "animate", "fun")
_WIDTH_OF_SMALL_WAN_2_1 = 1536
_LORA_WIDTHS = {5120: WanLoRAVariantType.A14B, 3072: WanLoRAVariantType.FiveB}
_SMALL_LATENTS, _LARGE_LATENTS = 16, 48
_is_lora_for_wan = loras.names_match(
    r"blocks[._]\d+[._](?:(?:self|cross)_attn[._][qkvo](?:_img)?\.|ffn[._]|attn[12][._]to_)"
)
_SETTINGS = {
    WanVariantType.T2V_A14B: MainModelDefaultSettings(width=1024, height=1024, steps=40, cfg_scale=4),
    WanVariantType.I2V_A14B: MainModelDefaultSettings(width=1024, height=1024, steps=40, cfg_scale=4),
    WanVariantType.TI2V_5B: MainModelDefaultSettings(width=1024, height=1024, steps=30, cfg_scale=5),
}


def _is_transformer(model: ModelFiles) -> None:
    names = model.without_prefixes(*forms.COMFY_PREFIXES)
    require(_patch(model) in _PATCHES, f"it has no tensors of Wan 2.2: its patches are {_patch(model)}")
    require(any(name.startswith(_TEXT) for name in names), "it has no text conditioning")
    require(not loras.is_lora(model), "it is a LoRA")


def _is_other_variant(model: ModelFiles) -> bool:
    """Return whether a file has the tensors of Wan, but also a condition or a size that Wan 2.2 does not have."""
    names = model.without_prefixes(*forms.COMFY_PREFIXES)
    if not _patch(model) or not any(name.startswith(_TEXT) for name in names):
        return False
    other = any(name.startswith(_OTHER_KINDS) for name in names) or forms.has_word(model, *_OTHER_WORDS)
    return other or _patch(model)[0] == _WIDTH_OF_SMALL_WAN_2_1


def _patch(model: ModelFiles) -> tuple[int, ...]:
    embedding = model.without_prefixes(*forms.COMFY_PREFIXES).get("patch_embedding.weight")
    return embedding.shape[:2] if embedding else ()


def _variant_of_file(model: ModelFiles) -> WanVariantType:
    return _PATCHES[_patch(model)]


def _expert(model: ModelFiles) -> str | None:
    name = model.name.lower()
    return next((level for level in ("high", "low") if forms.has_word(model, level) or f"{level}noise" in name), None)


def _variant_of_folder(model: ModelFiles) -> WanVariantType:
    config = forms.part_config(model, "transformer")
    if forms.number(config, "in_channels") == _LARGE_LATENTS or model.json("model_index.json").get("expand_timesteps"):
        return WanVariantType.TI2V_5B
    return WanVariantType.I2V_A14B if model.class_name == "WanImageToVideoPipeline" else WanVariantType.T2V_A14B


def _is_pipeline(model: ModelFiles) -> None:
    forms.is_folder_of("WanPipeline", "WanImageToVideoPipeline")(model)
    require(forms.part_config(model, "transformer").get("image_dim") is None, "it is Wan 2.1")


def _has_dual_expert(model: ModelFiles) -> bool:
    part = model.json("model_index.json").get("transformer_2")
    return isinstance(part, list) and bool(part) and part[-1] is not None


def _boundary_ratio(model: ModelFiles) -> float | None:
    ratio = model.json("model_index.json").get("boundary_ratio")
    return ratio if isinstance(ratio, int | float) else None


def _is_vae_folder(model: ModelFiles) -> None:
    forms.is_folder_of("AutoencoderKLWan")(model)
    channels = _latents_of_folder(model)
    require(channels in {_SMALL_LATENTS, _LARGE_LATENTS}, f"its latents have {channels} channels")


def _latents_of_folder(model: ModelFiles) -> int:
    return forms.number(model.json("config.json"), "z_dim") or _SMALL_LATENTS


def _variant_of_lora(model: ModelFiles) -> WanLoRAVariantType | None:
    return _LORA_WIDTHS.get(loras.input_of(model, r"self_attn[._]q|attn1[._]to_q|ffn[._]0") or 0)


def _file(config: type[ModelConfig], form: ModelFormat) -> Rule:
    return Rule(
        config=config,
        recognizes=forms.is_file_of(form, _is_transformer),
        detectors={
            "variant": _variant_of_file,
            "expert": lambda model: _expert(model) or "none",
            "default_settings": forms.settings_of(_variant_of_file, _SETTINGS),
        },
    )


FAMILY = Family(
    rules=(
        Rule(
            config=Main_Diffusers_Wan_Config,
            recognizes=_is_pipeline,
            detectors={
                "variant": _variant_of_folder,
                "repo_variant": forms.repo_variant,
                "has_dual_expert": _has_dual_expert,
                "boundary_ratio": _boundary_ratio,
                "default_settings": forms.settings_of(_variant_of_folder, _SETTINGS),
            },
        ),
        _file(Main_Checkpoint_Wan_Config, ModelFormat.Checkpoint),
        _file(Main_GGUF_Wan_Config, ModelFormat.GGUFQuantized),
        vaes.file_rule(VAE_Checkpoint_Wan_Config, BaseModelType.Wan, {"latent_channels": vaes.latent_channels}),
        Rule(
            config=VAE_Diffusers_Wan_Config,
            recognizes=_is_vae_folder,
            detectors={"latent_channels": _latents_of_folder, "repo_variant": forms.repo_variant},
        ),
        loras.rule(LoRA_LyCORIS_Wan_Config, _is_lora_for_wan, variant=_variant_of_lora, expert=_expert),
    ),
    architectures=(
        Architecture(BaseModelType.Wan, (latent_spaces.WAN, latent_spaces.WAN_TI2V), ModelDefaults(1024, 1024)),
    ),
    unsupported=(
        UnsupportedKind("Wan 2.1, or a variant of Wan for editing, control, sound or animation", _is_other_variant),
    ),
)
