"""ComfyUI nodes: a function per node, a file per theme. Importing this package registers them all."""

from invokeclone.shims.comfyui.node_types import registry
from invokeclone.shims.comfyui.nodes import (
    controls,
    custom_sampling,
    flow,
    images,
    latents,
    loaders,
    masks,
    model_images,
    primitives,
    prompts,
    references,
    sampling,
    unsupported,
)

__all__ = [
    "TYPES",
    "controls",
    "custom_sampling",
    "flow",
    "images",
    "latents",
    "loaders",
    "masks",
    "model_images",
    "primitives",
    "prompts",
    "references",
    "sampling",
    "unsupported",
]

TYPES = registry.types
"""All node types by name."""
