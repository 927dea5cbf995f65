"""LaMa: reading its archive without running code, its sizes, and the node that fills holes with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from invokeclone.components.infill import lama
from invokeclone.components.infill.nodes import LaMaInfillInvocation
from invokeclone.engine.cache import ModelCache
from invokeclone.engine.loading import loaders, torch_files
from invokeclone.kit.config.settings import Settings
from invokeclone.models.errors import InvalidModel
from invokeclone.models.files import pickles
from tests import tiny_lama
from tests.applications import sample_image
from tests.fakes_context import FakeContext


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lama") / "big-lama.pt"
    tiny_lama.write_archive(path)
    return path


def inputs(height: int = 24, width: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    hole = torch.zeros(1, 1, height, width)
    hole[..., 4:14, 6:20] = 1
    return pixels, hole


def test_the_published_archive_is_read_without_its_code(archive: Path) -> None:
    pixels, hole = inputs()
    result = lama.load(archive)(pixels, hole)
    assert torch.equal(result, tiny_lama.network()(pixels, hole))
    assert torch.equal(result * (1 - hole), pixels * (1 - hole))
    with pytest.raises(InvalidModel, match="not known to be safe"):
        pickles.read_content(archive)


def test_other_files_of_the_same_weights(archive: Path, tmp_path: Path) -> None:
    expected = lama.load(archive)(*inputs())
    save_file(
        {name: value for name, value in tiny_lama.weights().items() if not name.endswith("tracked")},
        tmp_path / "b.safetensors",
    )
    weights = {f"generator.model.{name}": value for name, value in tiny_lama.weights().items()}
    save_file(weights, tmp_path / "a.safetensors")
    torch.save({"state_dict": weights}, tmp_path / "a.ckpt")
    for name in ("a.safetensors", "a.ckpt", "b.safetensors"):
        assert torch.equal(lama.load(tmp_path / name)(*inputs()), expected), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.clear() or weights.update(a=torch.ones(1)), "is not a LaMa model"),
        (lambda weights: weights.pop("4.conv2.bn_g.weight"), "Missing key.*4.conv2.bn_g.weight"),
        (lambda weights: weights.pop("4.conv2.ffc.convl2l.weight"), "not a complete LaMa model"),
        (lambda weights: weights.update({"3.bn_l.bias": torch.ones(77)}), "size mismatch"),
        (lambda weights: weights.update({"1.more": torch.ones(1)}), "Unexpected key"),
        (lambda weights: weights.update({"1.ffc.convl2l.weight": torch.ones(3)}), "not a complete LaMa model"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    weights = tiny_lama.weights()
    change(weights)
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(InvalidModel, match=message):
        lama.load(tmp_path / "a.safetensors")


def test_modules_of_modules_are_limited_in_depth_and_size(tmp_path: Path) -> None:
    deep: dict[str, Any] = {"a": torch.ones(1)}
    for _ in range(20):
        deep = {"a": deep}
    torch.save(deep, tmp_path / "deep.pt")
    assert torch_files.read_modules(tmp_path / "deep.pt") == {}


class Models:
    """Loads the file of the tiny network as a worker does, in place of the published one."""

    def __init__(self, archive: Path) -> None:
        self.cache = ModelCache(Settings(), "cpu")
        self.archive = archive
        self.sources: list[str] = []

    def load_remote_model(self, source: str, loader: Any) -> Any:
        self.sources.append(source)
        return loaders.load_file(self.cache, self.archive, loader)


def run(archive: Path, image: Image.Image) -> tuple[Image.Image, FakeContext]:
    context = FakeContext(models=Models(archive))
    LaMaInfillInvocation(id="n", image=context.images.put(image)).invoke(context)
    return context.images.last(), context


@pytest.mark.parametrize("size", [(64, 48), (37, 21), (5, 3)])
def test_the_node_fills_the_hole_and_keeps_the_rest(archive: Path, size: tuple[int, int]) -> None:
    image = sample_image("RGBA", size)
    image.putalpha(255)
    image.paste((9, 200, 9, 0), (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4))
    result, context = run(archive, image)
    before, after = np.asarray(image), np.asarray(result)
    assert after.shape == before.shape
    assert (after[..., 3] == 255).all()
    opaque = before[..., 3] == 255
    assert (after[opaque] == before[opaque]).all()
    assert (after[~opaque] != before[~opaque]).any()
    assert context.models.sources == [lama.SOURCE]
    image.paste((200, 9, 9, 0), (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4))
    assert run(archive, image)[0].tobytes() == result.tobytes(), "colors of transparent pixels do not matter"


@pytest.mark.parametrize("alpha", [0, 255])
def test_without_a_hole_or_without_an_image_nothing_is_loaded(archive: Path, alpha: int) -> None:
    image = sample_image("RGBA", (8, 8))
    image.putalpha(alpha)
    result, context = run(archive, image)
    assert result.tobytes() == image.tobytes()
    assert context.models.sources == []
    assert bool(context.logger.lines) == (alpha == 0)
