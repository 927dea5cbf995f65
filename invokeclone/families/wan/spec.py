"""What Wan looks like in the records and on disk; it imports no torch and loads nothing."""

from typing import Literal

from pydantic import Field

from invokeclone.graph.taxonomy import BaseModelType, WanLoRAVariantType, WanVariantType
from invokeclone.models.configs import ModelConfig
from invokeclone.models.kinds import GGUF, Checkpoint, Diffusers, LoRAModel, LyCORIS, MainModel, VAEModel
from invokeclone.models.rules import Family


class _Wan(ModelConfig):
    base: Literal[BaseModelType.Wan] = BaseModelType.Wan


class Main_Diffusers_Wan_Config(MainModel, Diffusers, _Wan):
    """Wan in a folder."""

    variant: WanVariantType = Field(description="Which of the published models it is")
    has_dual_expert: bool = Field(
        default=False, description="Whether it has one denoiser for high and one for low noise"
    )
    boundary_ratio: float | None = Field(default=None, description="Where the one takes over from the other")


class Main_Checkpoint_Wan_Config(MainModel, Checkpoint, _Wan):
    """Wan in one file."""

    variant: WanVariantType = Field(description="Which of the published models it is")
    expert: Literal["high", "low", "none"] = Field(default="none", description="Noise levels that it was trained for")


class Main_GGUF_Wan_Config(MainModel, GGUF, _Wan):
    """Wan in GGUF's form."""

    variant: WanVariantType = Field(description="Which of the published models it is")
    expert: Literal["high", "low", "none"] = Field(default="none", description="Noise levels that it was trained for")


class VAE_Checkpoint_Wan_Config(VAEModel, Checkpoint, _Wan):
    """Wan's VAE in one file."""

    latent_channels: Literal[16, 48] = Field(description="Channels of its latents")


class VAE_Diffusers_Wan_Config(VAEModel, Diffusers, _Wan):
    """Wan's VAE in a folder."""

    latent_channels: Literal[16, 48] = Field(default=16, description="Channels of its latents")


class LoRA_LyCORIS_Wan_Config(LoRAModel, LyCORIS, _Wan):
    """A LoRA of Wan in one file."""

    variant: WanLoRAVariantType | None = Field(default=None, description="Which of the published models it is")
    expert: Literal["high", "low"] | None = Field(default=None, description="Noise levels that it was trained for")


FAMILY = Family(rules=())
