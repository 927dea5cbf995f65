"""What Stable Diffusion XL looks like in the records and on disk; it imports no torch and loads nothing."""

from typing import Literal

from invokeclone.graph.taxonomy import BaseModelType
from invokeclone.models.configs import ModelConfig
from invokeclone.models.kinds import (
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
from invokeclone.models.rules import Family
from invokeclone.models.signatures import control, embeddings, loras, pid, unets, vaes


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
    """A PiD decoder of Stable Diffusion XL's latents."""


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
    """An IP adapter of Stable Diffusion XL in a folder."""


class IPAdapter_Checkpoint_SDXL_Config(IPAdapterModel, PlainCheckpoint, _SDXL):
    """An IP adapter of Stable Diffusion XL in one file."""


class T2IAdapter_Diffusers_SDXL_Config(T2IAdapterModel, Diffusers, _SDXL):
    """A T2I adapter of Stable Diffusion XL."""


FAMILY = Family(
    rules=(
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
    )
)
