"""ControlNets of Z-Image, with 16 channels (version 1) or 33 channels (version 2) of input."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from invokeclone.engine.loading.files import read_tensors
from invokeclone.families.z_image.denoiser import ZImageCall
from invokeclone.families.z_image.single_files import count_blocks

_EMBEDDER = "control_all_x_embedder.2-1.weight"
_REFINER = "control_noise_refiner."
_EXTRA = ("before_proj", "after_proj")
"""Layers of refiner blocks in files of version 2.1, which InvokeAI ignores too."""
_TOKEN_VALUES = 4
_LAYER_DISTANCE = 2
_SHARED = (
    "t_scale", "t_embedder", "all_x_embedder", "cap_embedder", "rope_embedder", "noise_refiner", "context_refiner",
    "x_pad_token", "cap_pad_token",
)  # fmt: skip
"""What a ControlNet uses of its transformer."""


def load_controlnet_file(path: Path, dtype: torch.dtype) -> Any:
    """Return the ZImageControlNetModel of a file; sizes are those of its tensors.

    Its blocks act on layers 0, 2, 4 and so on of the transformer, as in InvokeAI. Raises ValueError for missing
    tensors.
    """
    from diffusers.models.controlnets.controlnet_z_image import ZImageControlNetModel

    weights = {name: value for name, value in read_tensors(path).items() if not _is_extra(name)}
    try:
        width, values = weights[_EMBEDDER].shape
        heads = width // weights["control_layers.0.attention.norm_q.weight"].shape[0]
        places = [_LAYER_DISTANCE * number for number in range(count_blocks(weights, "control_layers"))]
        with torch.device("meta"):
            net = ZImageControlNetModel(
                control_layers_places=places,
                control_in_dim=values // _TOKEN_VALUES,
                dim=width,
                n_refiner_layers=count_blocks(weights, "control_noise_refiner"),
                n_heads=heads,
                n_kv_heads=heads,
            )
        net.load_state_dict({name: value.to(dtype) for name, value in weights.items()}, assign=True)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path.name} holds an incomplete ControlNet, download it again: {reason}") from error
    return net.eval()


def _is_extra(name: str) -> bool:
    return name.startswith(_REFINER) and name.split(".")[2] in _EXTRA


@dataclass
class ZImageControlNet:
    """A ControlNet with its image, which acts in the steps from `begin` to `end`, fractions of the run."""

    net: Any
    transformer: Any
    image: torch.Tensor
    """Latents (1, 16, height, width)."""
    weight: float = 0.75
    begin: float = 0.0
    end: float = 1.0

    def __call__(self, call: ZImageCall) -> None:
        """Add the samples of an active ControlNet."""
        if not self.weight or not self.begin <= call.index / call.count <= self.end:
            return
        context = self._context().to(call.latents[0]).unsqueeze(1)
        with _lend_modules(self.net, self.transformer):
            samples = self.net(
                list(call.latents),
                call.time,
                list(call.text),
                [context] * len(call.latents),
                conditioning_scale=self.weight,
            )
        call.add_samples(samples)

    def _context(self) -> torch.Tensor:
        """Return the latents with as many channels as the network has: version 2 also takes an image and a mask to inpaint.

        Without those the image is zeros and the mask ones.
        """
        latents = self.image[0]
        missing = self.net.config.control_in_dim - len(latents)
        if not missing:
            return latents
        rest = latents.new_zeros(missing, *latents.shape[1:])
        rest[-1] = 1.0
        return torch.cat([latents, rest])


@contextmanager
def _lend_modules(net: Any, transformer: Any) -> Iterator[None]:
    """Give a ControlNet the transformer's modules inside the block; it does not own them."""
    for name in _SHARED:
        setattr(net, name, getattr(transformer, name))
    try:
        yield
    finally:
        for name in _SHARED:
            setattr(net, name, None)
