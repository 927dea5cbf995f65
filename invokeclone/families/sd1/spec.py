"""What Stable Diffusion 1 models look like on disk and in the records; it imports no torch and loads nothing."""

from typing import Any, Literal

from invokeclone.graph.taxonomy import (
    BaseModelType,
    ModelRepoVariant,
    ModelVariantType,
    SchedulerPredictionType,
)
from invokeclone.models.configs import ModelConfig
from invokeclone.models.defaults import MainModelDefaultSettings
from invokeclone.models.files import OnDisk
from invokeclone.models.kinds import (
    Checkpoint,
    ControlNetModel,
    Diffusers,
    EmbeddingFile,
    EmbeddingFolder,
    IPAdapterFolder,
    IPAdapterModel,
    LoRAFolder,
    LoRAModel,
    LyCORIS,
    PlainCheckpoint,
    StableDiffusionModel,
    T2IAdapterModel,
    VAEModel,
)
from invokeclone.models.rules import Family, Rule, require

PIPELINES = {"StableDiffusionPipeline", "StableDiffusionInpaintPipeline", "LatentConsistencyModelPipeline"}
AUTOENCODERS = {"AutoencoderKL", "AutoencoderTiny"}
CHECKPOINT_PREFIXES = ("cond_stage_model.", "first_stage_model.", "model.diffusion_model.")
VAE_PREFIXES = ("encoder.conv_in", "decoder.conv_in")

BASE_OF_WIDTH = {
    768: BaseModelType.StableDiffusion1,
    1024: BaseModelType.StableDiffusion2,
    1280: BaseModelType.StableDiffusionXLRefiner,
    2048: BaseModelType.StableDiffusionXL,
}
"""The architecture by the width of the text that its UNet attends to."""

VARIANT_OF_CHANNELS = {4: ModelVariantType.Normal, 5: ModelVariantType.Depth, 9: ModelVariantType.Inpaint}
"""The kind of UNet by the channels that go into it."""

LATENT_CHANNELS = 4
SDXL_SCALING_FACTOR = 0.13025
_UNET = "model.diffusion_model.input_blocks"
_ATTENTION = f"{_UNET}.2.1.transformer_blocks.0.attn2.to_k.weight"
_XL_ATTENTION = f"{_UNET}.4.1.transformer_blocks.0.attn2.to_k.weight"


class _SD1(ModelConfig):
    base: Literal[BaseModelType.StableDiffusion1] = BaseModelType.StableDiffusion1


class Main_Diffusers_SD1_Config(StableDiffusionModel, Diffusers, _SD1):
    """Stable Diffusion 1 in a folder."""


class Main_Checkpoint_SD1_Config(StableDiffusionModel, Checkpoint, _SD1):
    """Stable Diffusion 1 in one file."""


class VAE_Checkpoint_SD1_Config(VAEModel, Checkpoint, _SD1):
    """Stable Diffusion 1's VAE in one file."""


class VAE_Diffusers_SD1_Config(VAEModel, Diffusers, _SD1):
    """Stable Diffusion 1's VAE in a folder."""


class ControlNet_Checkpoint_SD1_Config(ControlNetModel, Checkpoint, _SD1):
    """A ControlNet of Stable Diffusion 1 in one file."""


class ControlNet_Diffusers_SD1_Config(ControlNetModel, Diffusers, _SD1):
    """A ControlNet of Stable Diffusion 1 in a folder."""


class LoRA_LyCORIS_SD1_Config(LoRAModel, LyCORIS, _SD1):
    """A LoRA of Stable Diffusion 1 in one file."""


class LoRA_Diffusers_SD1_Config(LoRAModel, LoRAFolder, _SD1):
    """A LoRA of Stable Diffusion 1 in a folder."""


class TI_File_SD1_Config(EmbeddingFile, _SD1):
    """A textual inversion of Stable Diffusion 1 in one file."""


class TI_Folder_SD1_Config(EmbeddingFolder, _SD1):
    """A textual inversion of Stable Diffusion 1 in a folder."""


class IPAdapter_InvokeAI_SD1_Config(IPAdapterFolder, _SD1):
    """An IP adapter of Stable Diffusion 1 in a folder."""


class IPAdapter_Checkpoint_SD1_Config(IPAdapterModel, PlainCheckpoint, _SD1):
    """An IP adapter of Stable Diffusion 1 in one file."""


class T2IAdapter_Diffusers_SD1_Config(T2IAdapterModel, Diffusers, _SD1):
    """A T2I adapter of Stable Diffusion 1."""


def _is_no_other_base(base: BaseModelType | None) -> None:
    require(base in (None, BaseModelType.StableDiffusion1), f"its cross-attention is that of {base}")


def _is_pipeline(model: OnDisk) -> None:
    require(model.is_folder, "it is not a folder")
    require(model.json("model_index.json"), "it has no model_index.json")
    require(model.class_name in PIPELINES, f"its class is {model.class_name}")
    _is_no_other_base(_base_of_pipeline(model))


def _base_of_pipeline(model: OnDisk) -> BaseModelType | None:
    width = model.json("unet/config.json").get("cross_attention_dim")
    return BASE_OF_WIDTH.get(width) if isinstance(width, int) else None


def _variant_of_pipeline(model: OnDisk) -> ModelVariantType:
    channels = model.json("unet/config.json").get("in_channels", LATENT_CHANNELS)
    require(channels in VARIANT_OF_CHANNELS, f"its UNet takes {channels} channels")
    return VARIANT_OF_CHANNELS[channels]


def _prediction_of_pipeline(model: OnDisk) -> SchedulerPredictionType:
    stated = model.json("scheduler/scheduler_config.json").get("prediction_type", "epsilon")
    require(stated in set(SchedulerPredictionType), f"its scheduler predicts {stated}")
    return SchedulerPredictionType(stated)


def _repo_variant(model: OnDisk) -> ModelRepoVariant:
    names = [file.name for file in model.files]
    if any(name.endswith(".fp16.safetensors") for name in names):
        return ModelRepoVariant.FP16
    if "openvino_model.xml" in names:
        return ModelRepoVariant.OpenVINO
    if any(name.endswith(".onnx") for name in names):
        return ModelRepoVariant.ONNX
    if "flax_model.msgpack" in names:
        return ModelRepoVariant.Flax
    return ModelRepoVariant.Default


def _is_checkpoint(model: OnDisk) -> None:
    require(not model.is_folder, "it is a folder")
    require(model.has_prefix(*CHECKPOINT_PREFIXES), "it has no tensors of a Stable Diffusion checkpoint")
    _is_no_other_base(_base_of_checkpoint(model))


def _base_of_checkpoint(model: OnDisk) -> BaseModelType | None:
    for name in (_ATTENTION, _XL_ATTENTION):
        if name in model.tensors:
            return BASE_OF_WIDTH.get(model.tensors[name].shape[-1])
    return None


def _variant_of_checkpoint(model: OnDisk) -> ModelVariantType:
    first = model.tensors.get(f"{_UNET}.0.0.weight")
    channels = first.shape[1] if first and len(first.shape) > 1 else None
    require(channels in VARIANT_OF_CHANNELS, f"its UNet takes {channels} channels")
    return VARIANT_OF_CHANNELS[channels or LATENT_CHANNELS]


def _is_vae_folder(model: OnDisk) -> None:
    require(model.is_folder, "it is not a folder")
    require(model.class_name in AUTOENCODERS, f"its class is {model.class_name}")
    channels = model.json("config.json").get("latent_channels", LATENT_CHANNELS)
    require(channels == LATENT_CHANNELS, f"its latents have {channels} channels")


def _base_of_vae_folder(model: OnDisk) -> BaseModelType:
    config = model.json("config.json")
    sdxl = config.get("scaling_factor") == SDXL_SCALING_FACTOR and config.get("sample_size") in {512, 1024}
    if sdxl or model.name.lower().endswith("xl"):
        return BaseModelType.StableDiffusionXL
    return BaseModelType.StableDiffusion1


def _is_vae_file(model: OnDisk) -> None:
    require(not model.is_folder, "it is a folder")
    require(model.has_prefix(*VAE_PREFIXES), "it has no tensors of a VAE")
    first = model.tensors.get("decoder.conv_in.weight")
    shape = first.shape if first else ()
    require(len(shape) == 4 and shape[1] == LATENT_CHANNELS, f"its decoder begins with a tensor of shape {shape}")  # noqa: PLR2004


def _base_of_vae_file(model: OnDisk) -> BaseModelType:
    name = model.name.lower()
    if "xl" in name:
        return BaseModelType.StableDiffusionXL
    return BaseModelType.StableDiffusion2 if "sd2" in name else BaseModelType.StableDiffusion1


def _default_settings(_: OnDisk) -> MainModelDefaultSettings:
    return MainModelDefaultSettings(width=512, height=512)


def _epsilon(_: OnDisk) -> Any:
    return SchedulerPredictionType.Epsilon


FAMILY = Family(
    rules=(
        Rule(
            config=Main_Diffusers_SD1_Config,
            recognises=_is_pipeline,
            base=_base_of_pipeline,
            detects={
                "variant": _variant_of_pipeline,
                "prediction_type": _prediction_of_pipeline,
                "repo_variant": _repo_variant,
                "default_settings": _default_settings,
            },
        ),
        Rule(
            config=Main_Checkpoint_SD1_Config,
            recognises=_is_checkpoint,
            base=_base_of_checkpoint,
            detects={
                "variant": _variant_of_checkpoint,
                "prediction_type": _epsilon,
                "default_settings": _default_settings,
            },
        ),
        Rule(
            config=VAE_Diffusers_SD1_Config,
            recognises=_is_vae_folder,
            base=_base_of_vae_folder,
            detects={"repo_variant": _repo_variant},
        ),
        Rule(config=VAE_Checkpoint_SD1_Config, recognises=_is_vae_file, base=_base_of_vae_file),
    ),
)
