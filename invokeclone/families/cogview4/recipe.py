"""CogView4's graph building blocks, with the same nodes as InvokeAI's web UI."""

from invokeclone.graph.recipes import recipe
from invokeclone.graph.recipes.flow import FlowRecipe
from invokeclone.graph.vocabulary.taxonomy import BaseModelType


@recipe(BaseModelType.CogView4)
class CogView4Recipe(FlowRecipe):
    """Recipe of CogView4."""

    name = "cogview4"
    metadata_mode = "cogview4_"
    text_encoders = ("glm_encoder",)
