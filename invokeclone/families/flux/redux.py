"""FLUX.1 Redux: an image as additional tokens of the prompt."""

from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch.nn import functional

from invokeclone.engine.loading.files import read_tensors
from invokeclone.kit.files.image_modes import convert

Downsampling = Literal["nearest", "bilinear", "bicubic", "area", "nearest-exact"]


def load_redux(path: Path, dtype: torch.dtype) -> Any:
    """Return the ReduxImageEncoder of a file; sizes are those of its tensors. Raises ValueError for missing ones."""
    from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder

    tensors = read_tensors(path)
    try:
        model = ReduxImageEncoder(tensors["redux_up.weight"].shape[1], tensors["redux_down.weight"].shape[0])
        model.load_state_dict(tensors)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path.name} holds an incomplete Redux model, download it again: {reason}") from error
    return model.to(dtype).eval()


def encode(
    encoder: Any, redux: Any, image: Image.Image, device: torch.device, redux_device: torch.device | None = None
) -> torch.Tensor:
    """Return the tokens (1, tokens, width) of an image, on the CPU, in Redux's number format.

    `encoder` is a SiglipVisionModel with its image processor, on `device`; so is Redux unless it has another. Raises ValueError for another image encoder.
    """
    if encoder.config.hidden_size != redux.redux_up.in_features:
        raise ValueError(
            f"this Redux model needs a SigLIP model of width {redux.redux_up.in_features}, not {encoder.config.hidden_size}: "
            "install google/siglip-so400m-patch14-384"
        )
    with torch.inference_mode():
        pixels = encoder.image_processor(images=[convert(image, "RGB")], return_tensors="pt", do_center_crop=False)[
            "pixel_values"
        ]
        states = encoder(pixels.to(device, encoder.dtype)).last_hidden_state
        tokens: torch.Tensor = redux(states.to(redux_device or device, redux.dtype)).image_embeds
        return tokens.cpu()


def weaken(tokens: torch.Tensor, factor: int, mode: Downsampling, weight: float) -> torch.Tensor:
    """Return fewer tokens, by a factor along each side of their square, multiplied by weight squared."""
    if factor > 1:
        count, width = tokens.shape[1:]
        side = int(count**0.5)
        if side // factor < 1:
            raise ValueError(f"downsampling_factor must be at most {side} for this image encoder, not {factor}")
        square = tokens[:, : side * side].reshape(len(tokens), side, side, width).transpose(1, 3)
        fewer = functional.interpolate(square.float(), size=(side // factor, side // factor), mode=mode)
        tokens = fewer.transpose(1, 3).reshape(len(tokens), -1, width).to(tokens.dtype)
    return tokens if weight == 1.0 else tokens * weight * weight
