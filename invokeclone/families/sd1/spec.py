"""What Stable Diffusion 1 models look like on disk and in the records; it imports no torch and loads nothing."""

from typing import Literal

from invokeclone.graph.taxonomy import BaseModelType
from invokeclone.models.configs import ModelConfig
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
from invokeclone.models.rules import Family
from invokeclone.models.signatures import control, embeddings, loras, unets, vaes


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
    )
)
