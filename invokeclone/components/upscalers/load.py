"""Loading of image-to-image models with spandrel, from tensors that are read without running code."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from invokeclone.engine.loading.files import read_tensors
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.loading.loaders import loads
from invokeclone.graph.context import CanceledException
from invokeclone.graph.vocabulary.taxonomy import ModelType
from invokeclone.models.errors import InvalidModel

RGB = 3
_MAX_REASON = 300


class ImageToImageNetwork(nn.Module):  # type: ignore[misc]
    """A network from images to images, of any of spandrel's architectures."""

    def __init__(self, descriptor: Any) -> None:
        """Hold the network of spandrel's description."""
        super().__init__()
        self.network = descriptor.model
        self.scale = int(descriptor.scale)
        """Number of pixels along a side for each pixel of the input."""
        self._descriptor = descriptor

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the image (1, 3, height, width), 0..1, `scale` times as large; gray for networks of gray images."""
        result: torch.Tensor = self._descriptor(_fit(pixels, self._descriptor.input_channels))
        return _fit(result, RGB)


@loads(type=ModelType.SpandrelImageToImage)
def load(request: LoadRequest) -> ImageToImageNetwork:
    """Return the network, in the request's number format if its architecture supports it, else in float32."""
    network = from_tensors(read_tensors(request.path), request.path.name)
    network.to(_dtype(network, request.dtype))
    return network


def from_tensors(tensors: Mapping[str, Any], name: str) -> ImageToImageNetwork:
    """Return the network of tensors, which may be nested as trainers do. Raises InvalidModel."""
    import spandrel

    unwrapped = spandrel.canonicalize_state_dict(dict(tensors))
    weights = {key: value for key, value in unwrapped.items() if isinstance(value, torch.Tensor)}
    try:
        descriptor = spandrel.ModelLoader().load_from_state_dict(weights)
    except CanceledException:
        raise
    except Exception as error:  # spandrel reads the sizes from the tensors; damaged ones raise many kinds of errors
        raise InvalidModel(f"{name} cannot be loaded by spandrel: {str(error)[:_MAX_REASON]}") from error
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise InvalidModel(f"{name} is a model of the architecture {descriptor.architecture.id}, which needs a mask")
    network = ImageToImageNetwork(descriptor)
    network.eval().requires_grad_(requires_grad=False)
    return network


def _dtype(network: ImageToImageNetwork, dtype: torch.dtype) -> torch.dtype:
    descriptor = network._descriptor  # noqa: SLF001  (of this module)
    supported = {
        torch.float16: descriptor.supports_half,
        torch.bfloat16: descriptor.supports_bfloat16,
    }
    return dtype if supported.get(dtype) else torch.float32


def _fit(pixels: torch.Tensor, channels: int) -> torch.Tensor:
    """Return an image with another number of channels: gray, RGB, or RGB and opacity."""
    if channels == pixels.shape[1]:
        return pixels
    if channels == 1:
        return pixels[:, :RGB].mean(1, keepdim=True)
    rgb = pixels.expand(-1, RGB, -1, -1) if pixels.shape[1] == 1 else pixels[:, :RGB]
    return torch.cat([rgb, torch.ones_like(rgb[:, :1])], 1) if channels > RGB else rgb
