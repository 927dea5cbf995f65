"""A function per ComfyUI node, a file per theme; importing this registers all of them."""

from invokeclone.shims.comfyui.node_types import registry
from invokeclone.shims.comfyui.nodes import (
    controls,
    images,
    latents,
    loaders,
    masks,
    primitives,
    prompts,
    references,
    sampling,
    unsupported,
)

__all__ = [
    "TYPES",
    "controls",
    "images",
    "latents",
    "loaders",
    "masks",
    "primitives",
    "prompts",
    "references",
    "sampling",
    "unsupported",
]

TYPES = registry.types
"""Every node type by name."""
