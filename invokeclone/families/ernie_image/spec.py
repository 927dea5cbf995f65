"""What ERNIE-Image looks like in the records and on disk; it imports no torch and loads nothing."""

from typing import Literal

from invokeclone.graph.taxonomy import BaseModelType
from invokeclone.models.configs import ModelConfig
from invokeclone.models.kinds import Diffusers, MainModel
from invokeclone.models.rules import Family


class _ErnieImage(ModelConfig):
    base: Literal[BaseModelType.ErnieImage] = BaseModelType.ErnieImage


class Main_Diffusers_ErnieImage_Config(MainModel, Diffusers, _ErnieImage):
    """ERNIE-Image in a folder."""


FAMILY = Family(rules=())
