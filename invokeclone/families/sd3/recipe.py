"""Stable Diffusion 3's graph building blocks, with the same nodes as InvokeAI's web UI."""

from invokeclone.graph.recipes import recipe
from invokeclone.graph.recipes.flow import FlowRecipe
from invokeclone.graph.vocabulary.taxonomy import BaseModelType


@recipe(BaseModelType.StableDiffusion3)
class SD3Recipe(FlowRecipe):
    """Recipe of Stable Diffusion 3 and 3.5."""

    name = "sd3"
    metadata_mode = "sd3_"
    text_encoders = ("clip_l", "clip_g", "t5_encoder")
