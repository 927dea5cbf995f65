"""Conversion of generation requests to batches, for `invokeclone generate`, the page and the compatibility APIs.

The family's recipe (`graph/recipes`) builds the graph; its `spec.py` states the family's capabilities.
"""

from invokeclone.queue.generation.errors import (
    ExtraModelNotFound,
    ExtraModelNotInstalled,
    InvalidGeneration,
    ModelCannotGenerate,
    ModelNotFound,
    NoModelInstalled,
    SizeOverLimits,
)
from invokeclone.queue.generation.extras import (
    CONTROLS,
    IP_ADAPTERS,
    LORAS,
    check_control_kind,
    image_encoder,
    references,
    require_images,
)
from invokeclone.queue.generation.image_sizes import resolve_with_images
from invokeclone.queue.generation.limits import MAX_PIXELS, MAX_SIDE, MIN_SIDE, SEEDS, is_within_limits
from invokeclone.queue.generation.mains import (
    architecture_of,
    check_capabilities,
    default_of,
    find_model,
    generation_models,
    identifier,
    is_refiner,
    recipe_for,
    require_capability,
    resolve_scheduler,
    share_latents,
    vae_base_of,
)
from invokeclone.queue.generation.request import (
    ControlChoice,
    GenerationRequest,
    LoRAChoice,
    ReferenceImageChoice,
    RefinerChoice,
    SecondPassChoice,
)
from invokeclone.queue.generation.resolution import ResolvedRequest, fit_size, resolve, weights_dropped
from invokeclone.queue.generation.second_pass import grid_of

__all__ = [
    "CONTROLS",
    "IP_ADAPTERS",
    "LORAS",
    "MAX_PIXELS",
    "MAX_SIDE",
    "MIN_SIDE",
    "SEEDS",
    "ControlChoice",
    "ExtraModelNotFound",
    "ExtraModelNotInstalled",
    "GenerationRequest",
    "InvalidGeneration",
    "LoRAChoice",
    "ModelCannotGenerate",
    "ModelNotFound",
    "NoModelInstalled",
    "ReferenceImageChoice",
    "RefinerChoice",
    "ResolvedRequest",
    "SecondPassChoice",
    "SizeOverLimits",
    "architecture_of",
    "check_capabilities",
    "check_control_kind",
    "default_of",
    "find_model",
    "fit_size",
    "generation_models",
    "grid_of",
    "identifier",
    "image_encoder",
    "is_refiner",
    "is_within_limits",
    "recipe_for",
    "references",
    "require_capability",
    "require_images",
    "resolve",
    "resolve_scheduler",
    "resolve_with_images",
    "share_latents",
    "vae_base_of",
    "weights_dropped",
]
