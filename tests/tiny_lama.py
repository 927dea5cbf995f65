"""LaMa with a few channels and random weights, by its published names, and as the TorchScript archive it is published in."""

import hashlib
import warnings
from pathlib import Path

import torch
from torch import nn

from invokeclone.components.infill import lama

WIDTH, DOWNSAMPLINGS, BLOCKS, GLOBAL_SHARE = 4, 2, 2, 0.75


class _Weights(dict[str, torch.Tensor]):
    """The weights that are made so far."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def convolution(self, name: str, outer: int, inner: int, kernel: int = 1) -> None:
        self[f"{name}.weight"] = torch.randn(outer, inner, kernel, kernel, generator=self._generator) * 0.3

    def norm(self, name: str, width: int) -> None:
        for part in ("weight", "running_var"):
            self[f"{name}.{part}"] = torch.rand(width, generator=self._generator) + 0.5
        for part in ("bias", "running_mean"):
            self[f"{name}.{part}"] = torch.randn(width, generator=self._generator) * 0.1
        self[f"{name}.num_batches_tracked"] = torch.tensor(1)

    def layer(self, name: str, inner: tuple[int, int], outer: tuple[int, int], kernel: int = 3) -> None:
        """Add a layer; `inner` and `outer` are local and global channels."""
        self.convolution(f"{name}.ffc.convl2l", outer[0], inner[0], kernel)
        self.norm(f"{name}.bn_l", outer[0])
        if outer[1]:
            self.convolution(f"{name}.ffc.convl2g", outer[1], inner[0], kernel)
            self.norm(f"{name}.bn_g", outer[1])
        if inner[1]:
            spectral, half = f"{name}.ffc.convg2g", outer[1] // 2
            self.convolution(f"{name}.ffc.convg2l", outer[0], inner[1], kernel)
            self.convolution(f"{spectral}.conv1.0", half, inner[1])
            self.norm(f"{spectral}.conv1.1", half)
            self.convolution(f"{spectral}.fu.conv_layer", 2 * half, 2 * half)
            self.norm(f"{spectral}.fu.bn", 2 * half)
            self.convolution(f"{spectral}.conv2", outer[1], half)


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the weights of the generator, numbered as in the published one."""
    made = _Weights(seed)
    made.layer("1", (4, 0), (WIDTH, 0), 7)
    parts, index = (WIDTH, 0), 2
    for number in range(DOWNSAMPLINGS):
        width = 2 * sum(parts)
        distant = int(width * GLOBAL_SHARE) if number == DOWNSAMPLINGS - 1 else 0
        made.layer(str(index), parts, (width - distant, distant))
        parts, index = (width - distant, distant), index + 1
    for _ in range(BLOCKS):
        for name in ("conv1", "conv2"):
            made.layer(f"{index}.{name}", parts, parts)
        index += 1
    width, index = sum(parts), index + 1  # the two parts are joined
    for _ in range(DOWNSAMPLINGS):
        made.convolution(str(index), width, width // 2, 3)  # of a transposed convolution
        made[f"{index}.bias"] = torch.zeros(width // 2)
        made.norm(str(index + 1), width // 2)
        width, index = width // 2, index + 3
    index += 1
    made.convolution(str(index), 3, width, 7)
    made[f"{index}.bias"] = torch.zeros(3)
    return dict(made)


def network(seed: int = 0) -> lama.LaMa:
    made = lama.LaMa(weights(seed))
    made.load_state_dict(weights(seed))
    return made.eval().requires_grad_(requires_grad=False)


class _Holder(nn.Module):
    """A module around another, as in the published archive."""

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        self.inner = name
        self.add_module(name, module)

    def forward(self, pixels: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.get_submodule(self.inner)(pixels, hole)
        return result


def write_archive(path: Path, seed: int = 0) -> None:
    """Write the network as a traced module under the names of the published one."""
    module: nn.Module = network(seed)
    for name in ("model", "generator", "model"):
        module = _Holder(name, module)
    example = torch.rand(1, 3, 16, 16), torch.ones(1, 1, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(module.eval(), example, check_trace=False)
        torch.jit.save(traced, str(path))


def put_into_download_cache(root: Path) -> None:
    """Let a server find the tiny network where it keeps the published one after its download."""
    folder = root / "models" / ".download_cache" / hashlib.sha256(lama.SOURCE.encode()).hexdigest()[:32]
    folder.mkdir(parents=True)
    write_archive(folder / lama.SOURCE.rpartition("/")[2])
