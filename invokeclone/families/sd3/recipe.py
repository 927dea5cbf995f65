"""Stable Diffusion 3's graph building blocks, with the same nodes as InvokeAI's web UI."""

from collections.abc import Mapping

from invokeclone.graph.recipes import PartKind, recipe
from invokeclone.graph.recipes.flow import FlowRecipe
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ClipVariantType, ModelType


@recipe(BaseModelType.StableDiffusion3)
class SD3Recipe(FlowRecipe):
    """Recipe of Stable Diffusion 3 and 3.5."""

    name = "sd3"
    metadata_mode = "sd3_"
    text_encoders = ("clip_l", "clip_g", "t5_encoder")
    separate_parts: Mapping[str, PartKind] = {
        "clip_l_model": PartKind(ModelType.CLIPEmbed, ClipVariantType.L),
        "clip_g_model": PartKind(ModelType.CLIPEmbed, ClipVariantType.G),
        "t5_encoder_model": PartKind(ModelType.T5Encoder),
        "vae_model": PartKind(ModelType.VAE),
    }
    schedule_shift: Mapping[str, float] = {"shift": 3.0}
