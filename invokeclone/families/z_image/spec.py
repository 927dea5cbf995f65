"""What Z-Image looks like in the records and on disk; it imports no torch and loads nothing."""

from typing import Literal

from pydantic import Field

from invokeclone.graph.taxonomy import BaseModelType, ZImageVariantType
from invokeclone.models.configs import ModelConfig
from invokeclone.models.kinds import (
    GGUF,
    Checkpoint,
    ControlNetModel,
    Diffusers,
    LoRAFolder,
    LoRAModel,
    LyCORIS,
    MainModel,
    SDNQFile,
    SDNQFolder,
)
from invokeclone.models.rules import Family


class _ZImage(ModelConfig):
    base: Literal[BaseModelType.ZImage] = BaseModelType.ZImage


class Main_Diffusers_ZImage_Config(MainModel, Diffusers, _ZImage):
    """Z-Image in a folder."""

    variant: ZImageVariantType = Field(description="Which of the published models it is")


class Main_Checkpoint_ZImage_Config(MainModel, Checkpoint, _ZImage):
    """Z-Image in one file."""

    variant: ZImageVariantType = Field(description="Which of the published models it is")


class Main_GGUF_ZImage_Config(MainModel, GGUF, _ZImage):
    """Z-Image in GGUF's form."""

    variant: ZImageVariantType = Field(description="Which of the published models it is")


class Main_SDNQ_ZImage_Config(MainModel, SDNQFile, _ZImage):
    """Z-Image in one file quantized by SDNQ."""

    variant: ZImageVariantType = Field(description="Which of the published models it is")


class Main_SDNQ_Diffusers_ZImage_Config(MainModel, SDNQFolder, _ZImage):
    """Z-Image in a folder quantized by SDNQ."""

    variant: ZImageVariantType = Field(description="Which of the published models it is")


class ControlNet_Checkpoint_ZImage_Config(ControlNetModel, Checkpoint, _ZImage):
    """A ControlNet of Z-Image in one file."""


class LoRA_LyCORIS_ZImage_Config(LoRAModel, LyCORIS, _ZImage):
    """A LoRA of Z-Image in one file."""

    variant: ZImageVariantType | None = Field(default=None, description="Which of the published models it is")


class LoRA_Diffusers_ZImage_Config(LoRAModel, LoRAFolder, _ZImage):
    """A LoRA of Z-Image in a folder."""

    variant: ZImageVariantType | None = Field(default=None, description="Which of the published models it is")


FAMILY = Family(rules=())
