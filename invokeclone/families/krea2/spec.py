"""What Krea-2 looks like in the records and on disk; it imports no torch and loads nothing."""

from typing import Literal

from pydantic import Field

from invokeclone.graph.taxonomy import BaseModelType, Krea2VariantType
from invokeclone.models.configs import ModelConfig
from invokeclone.models.kinds import GGUF, Checkpoint, Diffusers, LoRAModel, LyCORIS, MainModel
from invokeclone.models.rules import Family


class _Krea2(ModelConfig):
    base: Literal[BaseModelType.Krea2] = BaseModelType.Krea2


class Main_Diffusers_Krea2_Config(MainModel, Diffusers, _Krea2):
    """Krea-2 in a folder."""

    variant: Krea2VariantType = Field(description="Which of the published models it is")


class Main_Checkpoint_Krea2_Config(MainModel, Checkpoint, _Krea2):
    """Krea-2 in one file."""

    variant: Krea2VariantType = Field(description="Which of the published models it is")


class Main_GGUF_Krea2_Config(MainModel, GGUF, _Krea2):
    """Krea-2 in GGUF's form."""

    variant: Krea2VariantType = Field(description="Which of the published models it is")


class LoRA_LyCORIS_Krea2_Config(LoRAModel, LyCORIS, _Krea2):
    """A LoRA of Krea-2 in one file."""


FAMILY = Family(rules=())
