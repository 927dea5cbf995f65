"""What FLUX.1 looks like in the records and on disk; it imports no torch and loads nothing."""

from typing import Literal

from pydantic import Field

from invokeclone.graph.taxonomy import BaseModelType, FluxVariantType, ModelType
from invokeclone.models.configs import ModelConfig
from invokeclone.models.kinds import (
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
from invokeclone.models.rules import Family


class _FLUX(ModelConfig):
    base: Literal[BaseModelType.Flux] = BaseModelType.Flux


class Main_Diffusers_FLUX_Config(MainModel, Diffusers, _FLUX):
    """FLUX.1 in a folder."""

    variant: FluxVariantType = Field(description="Which of the published models it is")


class Main_Checkpoint_FLUX_Config(MainModel, Checkpoint, _FLUX):
    """FLUX.1 in one file."""

    variant: FluxVariantType = Field(description="Which of the published models it is")


class Main_BnBNF4_FLUX_Config(MainModel, BnBNF4, _FLUX):
    """FLUX.1 quantized by bitsandbytes."""

    variant: FluxVariantType = Field(description="Which of the published models it is")


class Main_GGUF_FLUX_Config(MainModel, GGUF, _FLUX):
    """FLUX.1 in GGUF's form."""

    variant: FluxVariantType = Field(description="Which of the published models it is")


class Main_SDNQ_FLUX_Config(MainModel, SDNQFile, _FLUX):
    """FLUX.1 in one file quantized by SDNQ."""

    variant: FluxVariantType = Field(description="Which of the published models it is")


class Main_SDNQ_Diffusers_FLUX_Config(MainModel, SDNQFolder, _FLUX):
    """FLUX.1 in a folder quantized by SDNQ."""

    variant: FluxVariantType = Field(description="Which of the published models it is")


class VAE_Checkpoint_FLUX_Config(VAEModel, Checkpoint, _FLUX):
    """FLUX.1's VAE in one file."""


class PiDDecoder_Checkpoint_FLUX_Config(PiDDecoderModel, Checkpoint, _FLUX):
    """A PiD decoder of FLUX.1's latents."""


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
    """An IP adapter of FLUX.1 in one file."""


class FLUXRedux_Checkpoint_Config(PlainCheckpoint, _FLUX):
    """FLUX Redux, which makes a prompt of a picture."""

    type: Literal[ModelType.FluxRedux] = ModelType.FluxRedux


FAMILY = Family(rules=())
