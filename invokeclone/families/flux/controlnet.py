"""ControlNets of FLUX.1: InstantX's, with union models, and XLabs'."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from invokeclone.engine.controls import is_active, weight_at
from invokeclone.engine.loading.files import read_tensors
from invokeclone.families.flux import single_files
from invokeclone.families.flux.denoiser import FluxCall

_MIN_WEIGHT = 1e-6
"""Weights below this one, also negative ones, switch a ControlNet off."""
_HINT = re.compile(r"input_hint_block\.(\d+)\.(weight|bias)")
_LAST_HINT = 14
_XLABS_PATCH = 2
_XLABS_CHANNELS = 16


def load_controlnet_file(path: Path, dtype: torch.dtype) -> Any:
    """Return the FluxControlNetModel of a file in either layout; sizes are those of its tensors.

    Raises ValueError for missing tensors.
    """
    from diffusers.models.controlnets.controlnet_flux import FluxControlNetModel

    try:
        weights = _to_diffusers_names(read_tensors(path))
        with torch.device("meta"):
            net = FluxControlNetModel(**_config(weights))
        net.load_state_dict({name: value.to(dtype) for name, value in weights.items()}, assign=True)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path.name} holds an incomplete ControlNet, download it again: {reason}") from error
    return net.eval()


def _to_diffusers_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, value in single_files.NAMES.to_diffusers(tensors).items():
        if match := _HINT.fullmatch(name):
            renamed[f"input_hint_block.{_hint_layer(int(match[1]))}.{match[2]}"] = value
        else:
            renamed[name.replace("pos_embed_input.", "controlnet_x_embedder.")] = value
    return renamed


def _hint_layer(number: int) -> str:
    """Return diffusers' name of a convolution of XLabs' image encoder; activations have the odd numbers."""
    if number in (0, _LAST_HINT):
        return "conv_out" if number else "conv_in"
    return f"blocks.{number // 2 - 1}"


def _config(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    config = single_files.network_config(weights)
    if "controlnet_mode_embedder.weight" in weights:
        config["num_mode"] = weights["controlnet_mode_embedder.weight"].shape[0]
    if any(name.startswith("input_hint_block.") for name in weights):
        config |= {"conditioning_embedding_channels": _XLABS_CHANNELS, "patch_size": _XLABS_PATCH}
    return config


def is_xlabs(net: Any) -> bool:
    """Return whether a ControlNet reads pixels instead of latents, and acts on double blocks only."""
    return net.input_hint_block is not None


@dataclass
class FluxControlNet:
    """A ControlNet with its image."""

    net: Any
    image: torch.Tensor
    """Packed latents (1, tokens, 64), or for XLabs pixels (1, 3, height, width) in -1..1."""
    blocks: tuple[int, int]
    """Number of double and single blocks of the transformer."""
    weight: float | Sequence[float] = 1.0
    begin: float = 0.0
    end: float = 1.0
    mode: int | None = None
    """The mode of a union model; None or -1 for none."""

    def __call__(self, call: FluxCall) -> None:
        """Add the residuals of an active ControlNet."""
        weight = weight_at(self.weight, call.index)
        if weight < _MIN_WEIGHT or not is_active(call.index, call.count, self.begin, self.end):
            return
        double, single = self._samples(call)
        repeats = is_xlabs(self.net)
        call.add_residuals(
            [sample * weight for sample in _spread(double, self.blocks[0], repeats=repeats)],
            [sample * weight for sample in _spread(single, self.blocks[1], repeats=repeats)],
        )

    def _samples(self, call: FluxCall) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
        device, dtype, rows = call.tokens.device, self.net.dtype, len(call.tokens)
        text = call.conditioning.text.to(dtype).expand(rows, -1, -1)
        with _mode(self.net, self.mode) as mode, _round_positions(self.net, dtype):
            double, single = self.net(
                hidden_states=call.tokens.to(dtype),
                controlnet_cond=self.image.to(device, dtype).expand(rows, *self.image.shape[1:]),
                controlnet_mode=None if mode is None else torch.full((rows, 1), mode, device=device),
                encoder_hidden_states=text,
                pooled_projections=call.conditioning.pooled.to(dtype).expand(rows, -1),
                timestep=call.time.to(dtype),
                guidance=call.guidance if self.net.config.guidance_embeds else None,
                img_ids=call.positions.to(device, dtype),
                txt_ids=torch.zeros(text.shape[1], 3, device=device, dtype=dtype),
                return_dict=False,
            )
        return double or [], single or []


@contextmanager
def _mode(net: Any, mode: int | None) -> Iterator[int | None]:
    """Yield the mode for the network's call; without one, a union model gets a vector of zeros as its mode."""
    if not net.union:
        yield None
    elif mode is not None and mode >= 0:
        if mode >= net.config.num_mode:
            raise ValueError(f"this union ControlNet has the modes 0 to {net.config.num_mode - 1}, not {mode}")
        yield mode
    else:
        hook = net.controlnet_mode_embedder.register_forward_hook(lambda _m, _i, output: torch.zeros_like(output))
        try:
            yield 0
        finally:
            hook.remove()


@contextmanager
def _round_positions(net: Any, dtype: torch.dtype) -> Iterator[None]:
    """Round the table of rotary embeddings to a number format, as for the transformer (`rotary_table`)."""
    hook = net.pos_embed.register_forward_hook(
        lambda _module, _inputs, table: tuple(part.to(dtype).float() for part in table)
    )
    try:
        yield
    finally:
        hook.remove()


def _spread(samples: Sequence[torch.Tensor], blocks: int, *, repeats: bool) -> list[torch.Tensor]:
    """Return one sample per block: each for consecutive blocks, or in turn if `repeats`."""
    if not samples:
        return []
    share = -(-blocks // len(samples))
    return [samples[number % len(samples) if repeats else number // share] for number in range(blocks)]
