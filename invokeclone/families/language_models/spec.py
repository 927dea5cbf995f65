"""What language models look like in the records and on disk; it imports no torch and loads nothing."""

from typing import Literal

from invokeclone.graph.taxonomy import ModelType
from invokeclone.models.kinds import CpuOnly, Diffusers, OfAnyBase
from invokeclone.models.rules import Family


class LlavaOnevision_Diffusers_Config(CpuOnly, Diffusers, OfAnyBase):
    """A LLaVA OneVision model, which describes pictures."""

    type: Literal[ModelType.LlavaOnevision] = ModelType.LlavaOnevision


class TextLLM_Diffusers_Config(CpuOnly, Diffusers, OfAnyBase):
    """A language model."""

    type: Literal[ModelType.TextLLM] = ModelType.TextLLM


FAMILY = Family(rules=())
