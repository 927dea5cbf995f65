"""What models that make pictures of pictures look like in the records and on disk; it imports no torch and loads nothing."""

from typing import Literal

from invokeclone.graph.taxonomy import ModelType
from invokeclone.models.kinds import OfAnyBase, PlainCheckpoint
from invokeclone.models.rules import Family


class Spandrel_Checkpoint_Config(PlainCheckpoint, OfAnyBase):
    """A model of any architecture that spandrel can load."""

    type: Literal[ModelType.SpandrelImageToImage] = ModelType.SpandrelImageToImage


FAMILY = Family(rules=())
