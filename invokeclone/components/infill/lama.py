"""LaMa: a network that fills holes, whose layers see the whole image through its Fourier transform (arXiv 2109.07161).

Features have two parts: local ones, and global ones that pass through the transform. The network's sizes are read from
the tensors; their names are those of the published weights.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from invokeclone.engine.loading import torch_files
from invokeclone.engine.loading.files import read_tensors
from invokeclone.models.errors import InvalidModel

SOURCE = "https://github.com/Sanster/models/releases/download/add_big_lama/big-lama.pt"
"""The published weights ("big-lama"), 206 MB, in a TorchScript archive. Its code is not run."""
GRID = 8
"""Sides of images are padded to multiples of this number of pixels."""
LEAST = 2 * GRID
"""Least side of images, for the padding in the layers between."""
WHITE = 255
_TRAINING = ".num_batches_tracked"
"""Counters of the training, which an archive may lack."""
_FIRST = re.compile(r"(?P<prefix>(?:.*\.)?)1\.ffc\.convl2l\.weight$")
_LAYER = re.compile(r"(?P<index>\d+)\.(?P<rest>.+)$")

Parts = tuple[torch.Tensor, torch.Tensor | None]
"""Local and global features; only the layers in the middle have global ones."""


def load(path: Path) -> "LaMa":
    """Return the network in a TorchScript archive, a torch file or a safetensors file. Raises InvalidModel."""
    is_torch = path.suffix.lower() in (".pt", ".pth", ".ckpt", ".bin")
    tensors = torch_files.read_modules(path) if is_torch else read_tensors(path)
    prefix = next((match["prefix"] for match in map(_FIRST.match, tensors) if match), None)
    if prefix is None:
        raise InvalidModel(f"{path.name} is not a LaMa model")
    weights = {
        name.removeprefix(prefix): value.float()
        for name, value in tensors.items()
        if name.startswith(prefix) and not name.endswith(_TRAINING)
    }
    try:
        network = LaMa(weights)
        counters = {name: value for name, value in network.state_dict().items() if name.endswith(_TRAINING)}
        network.load_state_dict(weights | counters, strict=True, assign=True)
    except (KeyError, RuntimeError, ValueError) as error:
        raise InvalidModel(f"{path.name} is not a complete LaMa model: {error}") from error
    network.eval().requires_grad_(requires_grad=False)
    return network


class _FourierUnit(nn.Module):  # type: ignore[misc]
    """A convolution of the real and imaginary parts of the spectrum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_layer = nn.Conv2d(2 * width, 2 * width, 1, bias=False)
        self.bn = nn.BatchNorm2d(2 * width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        _, width, *size = features.shape
        spectrum = torch.view_as_real(torch.fft.rfft2(features.float(), norm="ortho"))
        stacked = spectrum.permute(0, 1, 4, 2, 3).flatten(1, 2).to(features.dtype)  # a channel's parts are neighbors
        stacked = functional.relu(self.bn(self.conv_layer(stacked)))
        spectrum = stacked.float().unflatten(1, (width, 2)).permute(0, 1, 3, 4, 2).contiguous()
        return torch.fft.irfft2(torch.view_as_complex(spectrum), s=size, norm="ortho").to(features.dtype)


class _SpectralTransform(nn.Module):  # type: ignore[misc]
    """From global to global features."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU())
        self.fu = _FourierUnit(inner)
        self.conv2 = nn.Conv2d(inner, width, 1, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        narrow = self.conv1(features)
        result: torch.Tensor = self.conv2(narrow + self.fu(narrow))
        return result


class _FourierConvolution(nn.Module):  # type: ignore[misc]
    """Convolutions between local and global features, as many as there are weights for."""

    def __init__(self, shapes: Mapping[str, torch.Size], *, stride: int, padding: int) -> None:
        super().__init__()
        for name in ("convl2l", "convl2g", "convg2l"):
            shape = shapes.get(f"{name}.weight")
            if shape is not None:
                out_channels, in_channels, kernel, _ = shape
                convolution = nn.Conv2d(
                    in_channels, out_channels, kernel, stride, padding, bias=False, padding_mode="reflect"
                )
                self.add_module(name, convolution)
        if "convg2g.conv1.0.weight" in shapes:
            inner, width = shapes["convg2g.conv1.0.weight"][:2]
            self.convg2g = _SpectralTransform(width, inner)

    def forward(self, local: torch.Tensor, distant: torch.Tensor | None) -> Parts:
        names = {name for name, _ in self.named_children()}
        near: torch.Tensor = self.convl2l(local)
        far = self.convl2g(local) if "convl2g" in names else None
        if distant is not None:
            near = near + self.convg2l(distant)
            far = far + self.convg2g(distant)
        return near, far


class _Layer(nn.Module):  # type: ignore[misc]
    """A Fourier convolution, normalization and activation."""

    def __init__(self, shapes: Mapping[str, torch.Size], *, stride: int = 1, padding: int = 1) -> None:
        super().__init__()
        inner = {name.removeprefix("ffc."): shape for name, shape in shapes.items() if name.startswith("ffc.")}
        self.ffc = _FourierConvolution(inner, stride=stride, padding=padding)
        self.bn_l = nn.BatchNorm2d(inner["convl2l.weight"][0])
        if "convl2g.weight" in inner:
            self.bn_g = nn.BatchNorm2d(inner["convl2g.weight"][0])

    def forward(self, parts: Parts) -> Parts:
        local, distant = self.ffc(*parts)
        return functional.relu(self.bn_l(local)), None if distant is None else functional.relu(self.bn_g(distant))


class _Block(nn.Module):  # type: ignore[misc]
    """Two layers, added to their input."""

    def __init__(self, shapes: Mapping[str, torch.Size]) -> None:
        super().__init__()
        self.conv1, self.conv2 = (_Layer(_below(shapes, name)) for name in ("conv1", "conv2"))

    def forward(self, parts: Parts) -> Parts:
        local, distant = self.conv2(self.conv1(parts))
        return parts[0] + local, parts[1] + distant


class LaMa(nn.ModuleDict):  # type: ignore[misc]
    """The network. Its modules are named by their numbers in the published one, where padding and activations count."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Create the network that these weights belong to. Raises KeyError or ValueError if they are no LaMa."""
        shapes = {name: value.shape for name, value in tensors.items()}
        indexes = sorted({int(match["index"]) for match in map(_LAYER.match, shapes) if match})
        by_index = {index: _below(shapes, str(index)) for index in indexes}
        super().__init__()
        first, last = indexes[0], indexes[-1]
        self._layers = [index for index in indexes if "ffc.convl2l.weight" in by_index[index]]
        self._blocks = [index for index in indexes if "conv1.ffc.convl2l.weight" in by_index[index]]
        middle = {*self._layers, *self._blocks, last}
        self._upsampling = [index for index in indexes if index not in middle and len(by_index[index]["weight"]) > 1]
        modules: dict[str, nn.Module] = {}
        for index in self._layers:
            is_first = index == first
            kernel = by_index[index]["ffc.convl2l.weight"][-1]
            options = {"stride": 1, "padding": 0} if is_first else {"stride": 2, "padding": kernel // 2}
            modules[str(index)] = _Layer(by_index[index], **options)
        modules |= {str(index): _Block(by_index[index]) for index in self._blocks}
        for index in self._upsampling:
            inner, outer, kernel, _ = by_index[index]["weight"]
            modules[str(index)] = nn.ConvTranspose2d(inner, outer, kernel, 2, padding=1, output_padding=1)
            modules[str(index + 1)] = nn.BatchNorm2d(outer)
        outer, inner, kernel, _ = by_index[last]["weight"]
        self._padding = kernel // 2
        modules[str(last)] = nn.Conv2d(inner, outer, kernel)
        self._last = str(last)
        self.update(modules)

    def forward(self, pixels: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """Return the image (batch, 3, height, width), 0..1, with other pixels where `hole` (batch, 1, …) is 1.

        The sides are multiples of GRID.
        """
        intact = pixels * (1 - hole)
        features = functional.pad(torch.cat([intact, hole], 1), (self._padding,) * 4, mode="reflect")
        parts: Parts = features, None
        for index in self._layers + self._blocks:
            parts = self[str(index)](parts)
        features = torch.cat([part for part in parts if part is not None], 1)
        for index in self._upsampling:
            features = functional.relu(self[str(index + 1)](self[str(index)](features)))
        features = functional.pad(features, (self._padding,) * 4, mode="reflect")
        return intact + hole * torch.sigmoid(self[self._last](features))


def _below(shapes: Mapping[str, torch.Size], name: str) -> dict[str, torch.Size]:
    """Return the entries below a name, without it."""
    return {key.removeprefix(f"{name}."): shape for key, shape in shapes.items() if key.startswith(f"{name}.")}


def fill(network: LaMa, image: Image.Image, device: torch.device) -> Image.Image:
    """Return RGB of an RGBA image, with other pixels where it is not opaque."""
    channels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / WHITE
    padding = [max(-side % GRID, LEAST - side) for side in image.size]
    channels = functional.pad(channels, (0, padding[0], 0, padding[1]), mode="replicate").to(device)
    hole = (channels[:, 3:] < 1).to(channels.dtype)
    with torch.inference_mode():
        result = network(channels[:, :3], hole)[0, :, : image.height, : image.width]
    return Image.fromarray((result * WHITE).round().clamp(0, WHITE).byte().permute(1, 2, 0).cpu().numpy())


def working_memory(image: Image.Image) -> int:
    """Return an upper bound of the bytes that `fill` computes with: some layers of 64 channels, float32."""
    return image.width * image.height * 64 * 4 * 6
