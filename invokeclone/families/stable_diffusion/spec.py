"""Record classes, identification rules and architectures of Stable Diffusion 1, 2 and XL. Does not import torch."""

from dataclasses import replace
from typing import Any, Literal

from invokeclone.components.autoencoders import latent_spaces
from invokeclone.graph.vocabulary.architectures import Architecture, Capabilities, LatentSpace, ModelDefaults
from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAMES
from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.models.configs.kinds import (
    OMI,
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
    PiDDecoderModel,
    PlainCheckpoint,
    StableDiffusionModel,
    T2IAdapterModel,
    VAEModel,
)
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Family, UnsupportedKind
from invokeclone.models.identify.signatures import control, embeddings, loras, pid, unets, vaes


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
    """An IP-Adapter of Stable Diffusion 1 in a folder."""


class IPAdapter_Checkpoint_SD1_Config(IPAdapterModel, PlainCheckpoint, _SD1):
    """An IP-Adapter of Stable Diffusion 1 in one file."""


class T2IAdapter_Diffusers_SD1_Config(T2IAdapterModel, Diffusers, _SD1):
    """A T2I-Adapter of Stable Diffusion 1."""


class _SD2(ModelConfig):
    base: Literal[BaseModelType.StableDiffusion2] = BaseModelType.StableDiffusion2


class Main_Diffusers_SD2_Config(StableDiffusionModel, Diffusers, _SD2):
    """Stable Diffusion 2 in a folder."""


class Main_Checkpoint_SD2_Config(StableDiffusionModel, Checkpoint, _SD2):
    """Stable Diffusion 2 in one file."""


class VAE_Checkpoint_SD2_Config(VAEModel, Checkpoint, _SD2):
    """Stable Diffusion 2's VAE in one file."""


class ControlNet_Checkpoint_SD2_Config(ControlNetModel, Checkpoint, _SD2):
    """A ControlNet of Stable Diffusion 2 in one file."""


class ControlNet_Diffusers_SD2_Config(ControlNetModel, Diffusers, _SD2):
    """A ControlNet of Stable Diffusion 2 in a folder."""


class LoRA_LyCORIS_SD2_Config(LoRAModel, LyCORIS, _SD2):
    """A LoRA of Stable Diffusion 2 in one file."""


class LoRA_Diffusers_SD2_Config(LoRAModel, LoRAFolder, _SD2):
    """A LoRA of Stable Diffusion 2 in a folder."""


class TI_File_SD2_Config(EmbeddingFile, _SD2):
    """A textual inversion of Stable Diffusion 2 in one file."""


class TI_Folder_SD2_Config(EmbeddingFolder, _SD2):
    """A textual inversion of Stable Diffusion 2 in a folder."""


class IPAdapter_InvokeAI_SD2_Config(IPAdapterFolder, _SD2):
    """An IP-Adapter of Stable Diffusion 2 in a folder."""


class IPAdapter_Checkpoint_SD2_Config(IPAdapterModel, PlainCheckpoint, _SD2):
    """An IP-Adapter of Stable Diffusion 2 in one file."""


class _SDXL(ModelConfig):
    base: Literal[BaseModelType.StableDiffusionXL] = BaseModelType.StableDiffusionXL


class _SDXLRefiner(ModelConfig):
    base: Literal[BaseModelType.StableDiffusionXLRefiner] = BaseModelType.StableDiffusionXLRefiner


class Main_Diffusers_SDXL_Config(StableDiffusionModel, Diffusers, _SDXL):
    """Stable Diffusion XL in a folder."""


class Main_Checkpoint_SDXL_Config(StableDiffusionModel, Checkpoint, _SDXL):
    """Stable Diffusion XL in one file."""


class Main_Diffusers_SDXLRefiner_Config(StableDiffusionModel, Diffusers, _SDXLRefiner):
    """Stable Diffusion XL's refiner in a folder."""


class Main_Checkpoint_SDXLRefiner_Config(StableDiffusionModel, Checkpoint, _SDXLRefiner):
    """Stable Diffusion XL's refiner in one file."""


class VAE_Checkpoint_SDXL_Config(VAEModel, Checkpoint, _SDXL):
    """Stable Diffusion XL's VAE in one file."""


class VAE_Diffusers_SDXL_Config(VAEModel, Diffusers, _SDXL):
    """Stable Diffusion XL's VAE in a folder."""


class PiDDecoder_Checkpoint_SDXL_Config(PiDDecoderModel, Checkpoint, _SDXL):
    """A PiD decoder for the latents of Stable Diffusion XL."""


class ControlNet_Checkpoint_SDXL_Config(ControlNetModel, Checkpoint, _SDXL):
    """A ControlNet of Stable Diffusion XL in one file."""


class ControlNet_Diffusers_SDXL_Config(ControlNetModel, Diffusers, _SDXL):
    """A ControlNet of Stable Diffusion XL in a folder."""


class LoRA_LyCORIS_SDXL_Config(LoRAModel, LyCORIS, _SDXL):
    """A LoRA of Stable Diffusion XL in one file."""


class LoRA_OMI_SDXL_Config(LoRAModel, OMI, _SDXL):
    """A LoRA of Stable Diffusion XL with the Open Model Initiative's names."""


class LoRA_Diffusers_SDXL_Config(LoRAModel, LoRAFolder, _SDXL):
    """A LoRA of Stable Diffusion XL in a folder."""


class TI_File_SDXL_Config(EmbeddingFile, _SDXL):
    """A textual inversion of Stable Diffusion XL in one file."""


class TI_Folder_SDXL_Config(EmbeddingFolder, _SDXL):
    """A textual inversion of Stable Diffusion XL in a folder."""


class IPAdapter_InvokeAI_SDXL_Config(IPAdapterFolder, _SDXL):
    """An IP-Adapter of Stable Diffusion XL in a folder."""


class IPAdapter_Checkpoint_SDXL_Config(IPAdapterModel, PlainCheckpoint, _SDXL):
    """An IP-Adapter of Stable Diffusion XL in one file."""


class T2IAdapter_Diffusers_SDXL_Config(T2IAdapterModel, Diffusers, _SDXL):
    """A T2I-Adapter of Stable Diffusion XL."""


def _architecture(
    base: BaseModelType, latent_space: LatentSpace, side: int, *, noise_type: str | None = None, **capabilities: Any
) -> Architecture:
    able = replace(_CAPABILITIES, **capabilities)
    return Architecture(base, (latent_space,), ModelDefaults(side, side), able, noise_type)


_CAPABILITIES = Capabilities(
    schedulers=SCHEDULER_NAMES,
    image_to_image=True,
    inpaint=True,
    hires_fix=True,
    lora=True,
    control=True,
    reference_images=16,
    partial_denoise=True,
    regional_prompts=True,
    clip_skip=True,
    separate_vae=True,
    seamless=True,
    variation=True,
    cfg_rescale=True,
)
ARCHITECTURES = (
    _architecture(BaseModelType.StableDiffusion1, latent_spaces.STABLE_DIFFUSION, 512, noise_type="SD"),
    _architecture(BaseModelType.StableDiffusion2, latent_spaces.STABLE_DIFFUSION, 768),
    _architecture(
        BaseModelType.StableDiffusionXL,
        latent_spaces.STABLE_DIFFUSION_XL,
        1024,
        refiner=BaseModelType.StableDiffusionXLRefiner,
    ),
    _architecture(
        BaseModelType.StableDiffusionXLRefiner,
        latent_spaces.STABLE_DIFFUSION_XL,
        1024,
        lora=False,
        control=False,
        reference_images=0,
        regional_prompts=False,
    ),
)


def _is_lllite(model: ModelFiles) -> bool:
    return model.has_prefix("lllite_unet_")


FAMILY = Family(
    rules=(
        *unets.rules(Main_Diffusers_SD1_Config, Main_Checkpoint_SD1_Config, BaseModelType.StableDiffusion1),
        vaes.file_rule(VAE_Checkpoint_SD1_Config, BaseModelType.StableDiffusion1),
        vaes.kl_rule(VAE_Diffusers_SD1_Config),
        *control.controlnet_rules(ControlNet_Checkpoint_SD1_Config, ControlNet_Diffusers_SD1_Config),
        *loras.stable_diffusion_rules(LoRA_LyCORIS_SD1_Config, LoRA_Diffusers_SD1_Config),
        *embeddings.rules(TI_File_SD1_Config, TI_Folder_SD1_Config),
        *control.ip_adapter_rules(IPAdapter_InvokeAI_SD1_Config, IPAdapter_Checkpoint_SD1_Config),
        control.t2i_rule(T2IAdapter_Diffusers_SD1_Config),
        *unets.rules(Main_Diffusers_SD2_Config, Main_Checkpoint_SD2_Config, BaseModelType.StableDiffusion2),
        vaes.file_rule(VAE_Checkpoint_SD2_Config, BaseModelType.StableDiffusion2),
        *control.controlnet_rules(ControlNet_Checkpoint_SD2_Config, ControlNet_Diffusers_SD2_Config),
        *loras.stable_diffusion_rules(LoRA_LyCORIS_SD2_Config, LoRA_Diffusers_SD2_Config),
        *embeddings.rules(TI_File_SD2_Config, TI_Folder_SD2_Config),
        *control.ip_adapter_rules(IPAdapter_InvokeAI_SD2_Config, IPAdapter_Checkpoint_SD2_Config),
        *unets.rules(Main_Diffusers_SDXL_Config, Main_Checkpoint_SDXL_Config, BaseModelType.StableDiffusionXL),
        *unets.rules(
            Main_Diffusers_SDXLRefiner_Config,
            Main_Checkpoint_SDXLRefiner_Config,
            BaseModelType.StableDiffusionXLRefiner,
        ),
        vaes.file_rule(VAE_Checkpoint_SDXL_Config, BaseModelType.StableDiffusionXL),
        vaes.kl_rule(VAE_Diffusers_SDXL_Config),
        pid.rule(PiDDecoder_Checkpoint_SDXL_Config, BaseModelType.StableDiffusionXL),
        *control.controlnet_rules(ControlNet_Checkpoint_SDXL_Config, ControlNet_Diffusers_SDXL_Config),
        *loras.stable_diffusion_rules(LoRA_LyCORIS_SDXL_Config, LoRA_Diffusers_SDXL_Config),
        loras.omi_rule(LoRA_OMI_SDXL_Config),
        *embeddings.rules(TI_File_SDXL_Config, TI_Folder_SDXL_Config),
        *control.ip_adapter_rules(IPAdapter_InvokeAI_SDXL_Config, IPAdapter_Checkpoint_SDXL_Config),
        control.t2i_rule(T2IAdapter_Diffusers_SDXL_Config),
    ),
    architectures=ARCHITECTURES,
    unsupported=(UnsupportedKind("a ControlNet-LLLite of Stable Diffusion XL", _is_lllite),),
)
