"""From the settings of an image to a graph.

A family's `recipe.py` has a subclass of Recipe for its bases: which nodes load a model, encode a prompt, denoise, decode.
`Recipe.build` makes a whole graph of them; ComfyUI's API uses the blocks one by one. What a family can do is stated in its
`spec.py` (Capabilities) and checked before a recipe is asked.
"""

from invokeclone.graph.recipes.blocks import Recipe
from invokeclone.graph.recipes.registry import recipe, recipes
from invokeclone.graph.recipes.runs import DenoiseRun, ModelParts, PromptDetails
from invokeclone.graph.recipes.settings import (
    OUTPUT,
    PASTED,
    PROMPT,
    SEED,
    VARIATION,
    AppliedControl,
    AppliedLoRA,
    CannotBuild,
    ControlMode,
    ControlResize,
    Fill,
    HiresFix,
    ImageSettings,
    InitImage,
    InpaintMask,
    Model,
    PasteTarget,
    Pixels,
    Preprocessor,
    ReferenceImage,
    ReferenceMethod,
    Refiner,
    Share,
    Variation,
    merge_loras,
)

__all__ = [
    "OUTPUT",
    "PASTED",
    "PROMPT",
    "SEED",
    "VARIATION",
    "AppliedControl",
    "AppliedLoRA",
    "CannotBuild",
    "ControlMode",
    "ControlResize",
    "DenoiseRun",
    "Fill",
    "HiresFix",
    "ImageSettings",
    "InitImage",
    "InpaintMask",
    "Model",
    "ModelParts",
    "PasteTarget",
    "Pixels",
    "Preprocessor",
    "PromptDetails",
    "Recipe",
    "ReferenceImage",
    "ReferenceMethod",
    "Refiner",
    "Share",
    "Variation",
    "merge_loras",
    "recipe",
    "recipes",
]
