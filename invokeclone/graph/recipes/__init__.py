"""Recipes: build graphs from image settings.

A family's `recipe.py` has a subclass of Recipe for its bases: the nodes that load a model, encode a prompt, denoise and
decode. `Recipe.build` assembles a whole graph; ComfyUI's API uses the blocks individually. The Capabilities in the
family's `spec.py` are checked before a recipe is used.
"""

from invokeclone.graph.recipes.blocks import Recipe
from invokeclone.graph.recipes.loras import LoRANode
from invokeclone.graph.recipes.registry import every_recipe, find_recipe, recipe, recipes
from invokeclone.graph.recipes.runs import DenoiseRun, ModelParts, PartKind, PromptDetails, StyleModelKind
from invokeclone.graph.recipes.settings import (
    OUTPUT,
    PASTED,
    PROMPT,
    SEED,
    VARIATION,
    AppliedControl,
    AppliedLoRA,
    CannotBuild,
    ControlKind,
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
    StyleImage,
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
    "ControlKind",
    "ControlMode",
    "ControlResize",
    "DenoiseRun",
    "Fill",
    "HiresFix",
    "ImageSettings",
    "InitImage",
    "InpaintMask",
    "LoRANode",
    "Model",
    "ModelParts",
    "PartKind",
    "PasteTarget",
    "Pixels",
    "Preprocessor",
    "PromptDetails",
    "Recipe",
    "ReferenceImage",
    "ReferenceMethod",
    "Refiner",
    "Share",
    "StyleImage",
    "StyleModelKind",
    "Variation",
    "every_recipe",
    "find_recipe",
    "merge_loras",
    "recipe",
    "recipes",
]
