"""Conversion of OpenCLIP's text encoders (Stable Diffusion 2 and XL) to transformers' CLIP.

Tensors are renamed, and the joined queries, keys and values are split.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

_NAMES = (
    ("positional_embedding", "embeddings.position_embedding.weight"),
    ("token_embedding.", "embeddings.token_embedding."),
    ("ln_final.", "final_layer_norm."),
    ("transformer.resblocks.", "encoder.layers."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".attn.out_proj.", ".self_attn.out_proj."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)
_FUSED = re.compile(r"(?P<layer>.*)\.attn\.in_proj_(?P<kind>weight|bias)$")


def rename_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return an OpenCLIP text encoder's weights under the names of transformers' CLIPTextModel."""
    result: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        fused = _FUSED.match(name)
        if fused:
            for part, piece in zip(("q_proj", "k_proj", "v_proj"), value.chunk(3), strict=True):
                result[_name(f"{fused['layer']}.self_attn.{part}.{fused['kind']}")] = piece.contiguous()
        elif name == "text_projection":
            result["text_projection.weight"] = value.T.contiguous()
        else:
            result[_name(name)] = value
    return result


def _name(name: str) -> str:
    for open_clip_name, clip_name in _NAMES:
        name = name.replace(open_clip_name, clip_name)
    return name


def load(weights: Mapping[str, torch.Tensor], config: Any, *, projection: bool, dtype: torch.dtype) -> Any:
    """Return the text encoder with weights named by `rename_weights`; unknown weights are ignored.

    Raises KeyError when weights are missing.
    """
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        model = CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)
    model_weights = {name: weights[name.removeprefix("text_model.")].to(dtype) for name in model.state_dict()}
    return fill(model, model_weights, dtype)


def fill(model: Any, weights: dict[str, torch.Tensor], dtype: torch.dtype) -> Any:
    """Return a CLIP text encoder, created on the meta device, filled with its weights; position ids are not learned."""
    model.to_empty(device="cpu")
    model.to(dtype)
    model.load_state_dict(weights, assign=True, strict=True)
    for module in model.modules():
        if isinstance(positions := getattr(module, "position_ids", None), torch.Tensor):
            positions.copy_(torch.arange(positions.shape[-1]).expand_as(positions))
    return model.eval()
