"""Nodes whose models are not supported yet. They are registered so that clients find them and get the reason."""

from typing import Any

from invokeclone.shims.comfyui.node_types import BuildContext, NodeInput, link, list_choice, node, number

_NO_LIST = list_choice("absent", open_list=True)
"""A list without names that accepts any, so that the node itself reports the reason."""


def register_unsupported(
    feature: str, name: str, title: str, category: str, inputs: dict[str, NodeInput], *outputs: str | tuple[str, str]
) -> None:
    """Register a node that refuses to be built."""

    @node(name, title, category, inputs, *outputs)
    def build(context: BuildContext, **_inputs: Any) -> tuple[Any, ...]:
        """Not supported yet."""
        return context.refuse(f"{feature} are not supported yet")


register_unsupported(
    "Upscale models",
    "UpscaleModelLoader",
    "Load Upscale Model",
    "loaders",
    {"model_name": list_choice("upscale_models")},
    "UPSCALE_MODEL",
)
register_unsupported(
    "Upscale models",
    "ImageUpscaleWithModel",
    "Upscale Image (using Model)",
    "image/upscaling",
    {"upscale_model": link("UPSCALE_MODEL"), "image": link("IMAGE")},
    "IMAGE",
)
register_unsupported(
    "Models that take image embeddings (unCLIP)",
    "unCLIPCheckpointLoader",
    "unCLIPCheckpointLoader",
    "loaders",
    {"ckpt_name": _NO_LIST},
    "MODEL",
    "CLIP",
    "VAE",
    "CLIP_VISION",
)
register_unsupported(
    "Models that take image embeddings (unCLIP)",
    "unCLIPConditioning",
    "unCLIPConditioning",
    "conditioning",
    {
        "conditioning": link("CONDITIONING"),
        "clip_vision_output": link("CLIP_VISION_OUTPUT"),
        "strength": number(1.0, -10.0, 10.0),
        "noise_augmentation": number(0.0, 0.0, 1.0),
    },
    "CONDITIONING",
)
