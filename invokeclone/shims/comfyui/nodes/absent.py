"""Nodes whose models cannot be used here yet. They are known, so that clients find them; their lists hold no names."""

from typing import Any

from invokeclone.shims.comfyui.vocabulary import Input, Place, link, listed, node


def absent(what: str, name: str, title: str, category: str, inputs: dict[str, Input], *outputs: str) -> None:
    """Register a node that refuses to be drawn."""

    @node(name, title, category, inputs, *outputs)
    def draw(place: Place, **_given: Any) -> tuple[Any, ...]:
        """Not available here yet."""
        return place.refuse(f"{what} cannot be used here yet")


absent(
    "Upscale models",
    "UpscaleModelLoader",
    "Load Upscale Model",
    "loaders",
    {"model_name": listed("upscale_models")},
    "UPSCALE_MODEL",
)
absent(
    "Upscale models",
    "ImageUpscaleWithModel",
    "Upscale Image (using Model)",
    "image/upscaling",
    {"upscale_model": link("UPSCALE_MODEL"), "image": link("IMAGE")},
    "IMAGE",
)
