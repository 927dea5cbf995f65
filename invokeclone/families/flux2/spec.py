"""What FLUX.2 looks like in the records and on disk; it imports no torch and loads nothing."""

from typing import Literal

from pydantic import Field

from invokeclone.graph.taxonomy import BaseModelType, Flux2VariantType
from invokeclone.models.configs import ModelConfig
from invokeclone.models.kinds import (
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
from invokeclone.models.rules import Family


class _Flux2(ModelConfig):
    base: Literal[BaseModelType.Flux2] = BaseModelType.Flux2


class Main_Diffusers_Flux2_Config(MainModel, Diffusers, _Flux2):
    """FLUX.2 in a folder."""

    variant: Flux2VariantType = Field(description="Which of the published models it is")


class Main_Checkpoint_Flux2_Config(MainModel, Checkpoint, _Flux2):
    """FLUX.2 in one file."""

    variant: Flux2VariantType = Field(description="Which of the published models it is")


class Main_GGUF_Flux2_Config(MainModel, GGUF, _Flux2):
    """FLUX.2 in GGUF's form."""

    variant: Flux2VariantType = Field(description="Which of the published models it is")


class Main_SDNQ_Flux2_Config(MainModel, SDNQFile, _Flux2):
    """FLUX.2 in one file quantized by SDNQ."""

    variant: Flux2VariantType = Field(description="Which of the published models it is")


class Main_SDNQ_Diffusers_Flux2_Config(MainModel, SDNQFolder, _Flux2):
    """FLUX.2 in a folder quantized by SDNQ."""

    variant: Flux2VariantType = Field(description="Which of the published models it is")


class VAE_Checkpoint_Flux2_Config(VAEModel, Checkpoint, _Flux2):
    """FLUX.2's VAE in one file."""


class VAE_Diffusers_Flux2_Config(VAEModel, Diffusers, _Flux2):
    """FLUX.2's VAE in a folder."""


class PiDDecoder_Checkpoint_Flux2_Config(PiDDecoderModel, Checkpoint, _Flux2):
    """A PiD decoder of FLUX.2's latents."""


class LoRA_LyCORIS_Flux2_Config(LoRAModel, LyCORIS, _Flux2):
    """A LoRA of FLUX.2 in one file."""

    variant: Flux2VariantType | None = Field(default=None, description="Which of the published models it is")


class LoRA_Diffusers_Flux2_Config(LoRAModel, LoRAFolder, _Flux2):
    """A LoRA of FLUX.2 in a folder."""

    variant: Flux2VariantType | None = Field(default=None, description="Which of the published models it is")


FAMILY = Family(rules=())
