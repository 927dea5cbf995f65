"""OpenCLIP's text encoders, as Stable Diffusion 2 and XL hold them, as transformers' CLIP: other names, queries, keys and values in one.

It knows both ways to name weights and refuses to know which file has them under what prefix.
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


def renamed(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return an OpenCLIP text encoder's weights under the names that transformers' CLIPTextModel gives them."""
    found: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        fused = _FUSED.match(name)
        if fused:
            for part, piece in zip(("q_proj", "k_proj", "v_proj"), value.chunk(3), strict=True):
                found[_name(f"{fused['layer']}.self_attn.{part}.{fused['kind']}")] = piece.contiguous()
        elif name == "text_projection":
            found["text_projection.weight"] = value.T.contiguous()
        else:
            found[_name(name)] = value
    return found


def _name(name: str) -> str:
    for theirs, ours in _NAMES:
        name = name.replace(theirs, ours)
    return name


def load(weights: Mapping[str, torch.Tensor], config: Any, *, projection: bool, dtype: torch.dtype) -> Any:
    """Return the text encoder with these weights, which have OpenCLIP's names; what it has no place for is left out.

    Raises KeyError when weights are missing.
    """
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        model = CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)
    theirs = renamed(weights)
    mine = {name: theirs[name.removeprefix("text_model.")].to(dtype) for name in model.state_dict()}
    model.to_empty(device="cpu")
    model.to(dtype)
    model.load_state_dict(mine, assign=True, strict=True)
    for module in model.modules():
        if isinstance(positions := getattr(module, "position_ids", None), torch.Tensor):
            positions.copy_(torch.arange(positions.shape[-1]).expand_as(positions))
    return model.eval()
