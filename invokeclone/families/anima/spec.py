"""What Anima looks like in the records and on disk; it imports no torch and loads nothing."""

from typing import Literal

from pydantic import Field

from invokeclone.graph.taxonomy import BaseModelType
from invokeclone.models.configs import ModelConfig
from invokeclone.models.kinds import Checkpoint, ControlNetModel, LoRAModel, LyCORIS, MainModel, VAEModel
from invokeclone.models.rules import Family


class _Anima(ModelConfig):
    base: Literal[BaseModelType.Anima] = BaseModelType.Anima


class Main_Checkpoint_Anima_Config(MainModel, Checkpoint, _Anima):
    """Anima in one file."""


class VAE_Checkpoint_Anima_Config(VAEModel, Checkpoint, _Anima):
    """Anima's VAE in one file."""


class ControlNet_Checkpoint_Anima_Config(ControlNetModel, Checkpoint, _Anima):
    """A ControlNet of Anima in one file."""

    cond_in_channels: int | None = Field(default=None, description="Channels of the picture that steers it")


class LoRA_LyCORIS_Anima_Config(LoRAModel, LyCORIS, _Anima):
    """A LoRA of Anima in one file."""


FAMILY = Family(rules=())
