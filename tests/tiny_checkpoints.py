"""Single files of tiny Stable Diffusion models: their tensors under the names that the published files have."""

import re
from collections.abc import Sequence
from typing import Any

import torch

from invokeclone.components.autoencoders.load import PREFIX as VAE_PREFIX
from invokeclone.components.clip import open_clip
from invokeclone.families.stable_diffusion.single_files import SD1_TEXT_PREFIX, UNET_PREFIX

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_SINGLE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_LEVEL = re.compile(
    r"(?P<side>down|up)_blocks\.(?P<level>\d+)\.(?P<kind>[a-z]+)\.(?P<index>\d+)(?:\.conv(?=\.))?\.?(?P<rest>.*)"
)
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def _unet_name(name: str, layers: int = 1, depths: Sequence[int] = (0, 1)) -> str:
    """Return the original name of a UNet's or ControlNet's tensor; `depths`: whether each level on the way down has attention."""
    match = _LEVEL.fullmatch(name)
    if match is None:
        block = next(block for block in _SINGLE if name.startswith(f"{block}."))
        rest = name.removeprefix(f"{block}.")
        return f"{UNET_PREFIX}{_SINGLE[block]}.{_resnet(rest) if 'resnets' in block else rest}"
    level, index, kind = int(match["level"]), int(match["index"]), match["kind"]
    rest = _resnet(match["rest"]) if kind == "resnets" else match["rest"]
    if match["side"] == "down":
        number = level * (layers + 1) + index + 1
        if kind == "downsamplers":
            return f"{UNET_PREFIX}input_blocks.{(level + 1) * (layers + 1)}.0.op.{rest}"
        return f"{UNET_PREFIX}input_blocks.{number}.{int(kind == 'attentions')}.{rest}"
    if kind == "upsamplers":
        module = 2 if depths[::-1][level] else 1
        return f"{UNET_PREFIX}output_blocks.{level * (layers + 1) + layers}.{module}.conv.{rest}"
    return f"{UNET_PREFIX}output_blocks.{level * (layers + 1) + index}.{int(kind == 'attentions')}.{rest}"


def _resnet(rest: str) -> str:
    layer, _, last = rest.partition(".")
    return f"{_RESNET[layer]}.{last}"


def _vae_name(name: str) -> str:
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1")
    if "mid.attn_1" in name:
        for original, published in _VAE_ATTENTION.items():
            name = name.replace(f".{original}.", f".{published}.")
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", name)
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    return VAE_PREFIX + name


def unet_weights(unet: Any) -> dict[str, torch.Tensor]:
    """Return a UNet's tensors by their published names."""
    depths = [int("CrossAttn" in kind) for kind in unet.config.down_block_types]
    layers = unet.config.layers_per_block
    return {_unet_name(name, layers, depths): value for name, value in unet.state_dict().items()}


def vae_weights(vae: Any) -> dict[str, torch.Tensor]:
    """Return an autoencoder's tensors by their published names; linear layers of the attention are convolutions there."""

    def is_linear(name: str) -> bool:
        return "attentions" in name and "to_" in name and name.endswith("weight")

    return {
        _vae_name(name): value[..., None, None] if is_linear(name) else value
        for name, value in vae.state_dict().items()
    }


def clip_weights(text_encoder: Any, prefix: str = SD1_TEXT_PREFIX) -> dict[str, torch.Tensor]:
    """Return a CLIP text encoder's tensors by their published names."""
    state = text_encoder.state_dict()
    return {f"{prefix}text_model.{name.removeprefix('text_model.')}": value for name, value in state.items()}


def open_clip_weights(text_encoder: Any, prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a transformers' text encoder as OpenCLIP has them."""
    weights: dict[str, torch.Tensor] = {}
    state = {name.removeprefix("text_model."): value for name, value in text_encoder.state_dict().items()}
    for name, value in state.items():
        if name == "text_projection.weight":
            weights["text_projection"] = value.T.contiguous()
        elif ".k_proj." in name or ".v_proj." in name:
            continue
        elif ".q_proj." in name:
            fused = torch.cat([state[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")])
            layer, kind = name.split(".")[2], name.rpartition(".")[2]
            weights[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"] = fused
        else:
            published = name
            for published_part, own_part in open_clip._NAMES:
                published = published.replace(own_part, published_part)
            weights[published] = value
    return {f"{prefix}{name}": value for name, value in weights.items()}


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Return whether two networks have the same tensors under the same names."""
    first_state, second_state = first.state_dict(), second.state_dict()
    return first_state.keys() == second_state.keys() and all(
        torch.equal(first_state[name], second_state[name]) for name in first_state
    )
