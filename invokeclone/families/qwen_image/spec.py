"""What Qwen-Image looks like in the records and on disk; it imports no torch and loads nothing."""

from typing import Literal

from pydantic import Field

from invokeclone.graph.taxonomy import BaseModelType, QwenImageVariantType
from invokeclone.models.configs import ModelConfig
from invokeclone.models.kinds import (
    GGUF,
    Checkpoint,
    Diffusers,
    LoRAModel,
    LyCORIS,
    MainModel,
    PiDDecoderModel,
    VAEModel,
)
from invokeclone.models.rules import Family


class _QwenImage(ModelConfig):
    base: Literal[BaseModelType.QwenImage] = BaseModelType.QwenImage


class Main_Diffusers_QwenImage_Config(MainModel, Diffusers, _QwenImage):
    """Qwen-Image in a folder."""

    variant: QwenImageVariantType | None = Field(default=None, description="Which of the published models it is")


class Main_Checkpoint_QwenImage_Config(MainModel, Checkpoint, _QwenImage):
    """Qwen-Image in one file."""

    variant: QwenImageVariantType | None = Field(default=None, description="Which of the published models it is")


class Main_GGUF_QwenImage_Config(MainModel, GGUF, _QwenImage):
    """Qwen-Image in GGUF's form."""

    variant: QwenImageVariantType | None = Field(default=None, description="Which of the published models it is")


class VAE_Checkpoint_QwenImage_Config(VAEModel, Checkpoint, _QwenImage):
    """Qwen-Image's VAE in one file."""


class PiDDecoder_Checkpoint_QwenImage_Config(PiDDecoderModel, Checkpoint, _QwenImage):
    """A PiD decoder of Qwen-Image's latents."""


class LoRA_LyCORIS_QwenImage_Config(LoRAModel, LyCORIS, _QwenImage):
    """A LoRA of Qwen-Image in one file."""


FAMILY = Family(rules=())
