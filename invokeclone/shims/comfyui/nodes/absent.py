"""Nodes whose models cannot be used here yet. They are known, so that clients find them; their lists hold no names."""

from dataclasses import replace
from typing import Any

from invokeclone.shims.comfyui.vocabulary import Input, Place, link, listed, node, number

CONTROL = {"control_net": link("CONTROL_NET"), "image": link("IMAGE"), "strength": number(1.0, 0.0, 10.0)}


def absent(what: str, name: str, title: str, category: str, inputs: dict[str, Input], *outputs: str) -> None:
    """Register a node that refuses to be drawn."""

    @node(name, title, category, inputs, *outputs)
    def draw(place: Place, **_given: Any) -> tuple[Any, ...]:
        """Not available here yet."""
        return place.refuse(f"{what} cannot be used here yet")


absent(
    "ControlNets",
    "ControlNetLoader",
    "Load ControlNet Model",
    "loaders",
    {"control_net_name": listed("controlnet")},
    "CONTROL_NET",
)
absent(
    "ControlNets",
    "ControlNetApply",
    "Apply ControlNet (OLD)",
    "conditioning/controlnet",
    {"conditioning": link("CONDITIONING"), **CONTROL},
    "CONDITIONING",
)
absent(
    "ControlNets",
    "ControlNetApplyAdvanced",
    "Apply ControlNet",
    "conditioning/controlnet",
    {
        "positive": link("CONDITIONING"),
        "negative": link("CONDITIONING"),
        **CONTROL,
        "start_percent": number(0.0, 0.0, 1.0, step=0.001),
        "end_percent": number(1.0, 0.0, 1.0, step=0.001),
        "vae": replace(link("VAE"), optional=True),
    },
    "CONDITIONING",
    "CONDITIONING",
)
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
