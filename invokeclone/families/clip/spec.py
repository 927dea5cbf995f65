"""What CLIP and SigLIP encoders look like in the records and on disk; it imports no torch and loads nothing."""

from typing import Literal

from invokeclone.graph.taxonomy import ClipVariantType, ModelType
from invokeclone.models.kinds import CpuOnly, Diffusers, OfAnyBase
from invokeclone.models.rules import Family


class CLIPEmbed_Diffusers_G_Config(CpuOnly, Diffusers, OfAnyBase):
    """CLIP-G's text encoder."""

    type: Literal[ModelType.CLIPEmbed] = ModelType.CLIPEmbed
    variant: Literal[ClipVariantType.G] = ClipVariantType.G


class CLIPEmbed_Diffusers_L_Config(CpuOnly, Diffusers, OfAnyBase):
    """CLIP-L's text encoder."""

    type: Literal[ModelType.CLIPEmbed] = ModelType.CLIPEmbed
    variant: Literal[ClipVariantType.L] = ClipVariantType.L


class CLIPVision_Diffusers_Config(CpuOnly, Diffusers, OfAnyBase):
    """A CLIP image encoder."""

    type: Literal[ModelType.CLIPVision] = ModelType.CLIPVision


class SigLIP_Diffusers_Config(CpuOnly, Diffusers, OfAnyBase):
    """A SigLIP image encoder."""

    type: Literal[ModelType.SigLIP] = ModelType.SigLIP


FAMILY = Family(rules=())
