"""What Stable Diffusion 2 looks like in the records and on disk; it imports no torch and loads nothing."""

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
    VAEModel,
)
from invokeclone.models.rules import Family
from invokeclone.models.signatures import control, embeddings, loras, unets, vaes


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
    """An IP adapter of Stable Diffusion 2 in a folder."""


class IPAdapter_Checkpoint_SD2_Config(IPAdapterModel, PlainCheckpoint, _SD2):
    """An IP adapter of Stable Diffusion 2 in one file."""


FAMILY = Family(
    rules=(
        *unets.rules(Main_Diffusers_SD2_Config, Main_Checkpoint_SD2_Config, BaseModelType.StableDiffusion2),
        vaes.file_rule(VAE_Checkpoint_SD2_Config, BaseModelType.StableDiffusion2),
        *control.controlnet_rules(ControlNet_Checkpoint_SD2_Config, ControlNet_Diffusers_SD2_Config),
        *loras.stable_diffusion_rules(LoRA_LyCORIS_SD2_Config, LoRA_Diffusers_SD2_Config),
        *embeddings.rules(TI_File_SD2_Config, TI_Folder_SD2_Config),
        *control.ip_adapter_rules(IPAdapter_InvokeAI_SD2_Config, IPAdapter_Checkpoint_SD2_Config),
    )
)
