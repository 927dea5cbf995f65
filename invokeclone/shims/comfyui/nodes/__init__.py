"""A function per ComfyUI node, a file per theme; importing this registers all of them."""

from invokeclone.shims.comfyui.nodes import (
    absent,
    controls,
    images,
    latents,
    loaders,
    masks,
    primitives,
    prompts,
    references,
    sampling,
)
from invokeclone.shims.comfyui.vocabulary import registry

__all__ = [
    "TYPES",
    "absent",
    "controls",
    "images",
    "latents",
    "loaders",
    "masks",
    "primitives",
    "prompts",
    "references",
    "sampling",
]

TYPES = registry.types
"""Every node type by name."""
