"""Image-to-image models: loading by spandrel, tiles, and the nodes that run them."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from invokeclone.components.upscalers import nodes, pipeline, spec
from invokeclone.components.upscalers.load import ImageToImageNetwork, from_tensors
from invokeclone.components.upscalers.load import load as load_upscaler
from invokeclone.engine.cache import ModelCache
from invokeclone.engine.checkpoints import loading
from invokeclone.engine.loading import loaders
from invokeclone.engine.loading.files import read_tensors
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.graph.checkpoints import watch_cancellation
from invokeclone.graph.context import CanceledException
from invokeclone.graph.sizes import SizeOverLimit
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.config.settings import Settings
from invokeclone.models.errors import InvalidModel
from invokeclone.models.files.model_files import ModelFiles
from tests import tiny_upscalers
from tests.applications import sample_image
from tests.fakes_context import FakeContext

CPU = torch.device("cpu")
MODEL = ModelIdentifierField(
    key="k", hash="h", name="Tiny ESRGAN", base=BaseModelType.Any, type=ModelType.SpandrelImageToImage
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny_upscalers.require_spandrel()
    path = tmp_path_factory.mktemp("esrgan") / "RealESRGAN_x2plus.pth"
    tiny_upscalers.write_esrgan(path)
    return path


def request(path: Path, dtype: torch.dtype = torch.float32) -> LoadRequest:
    return LoadRequest(SimpleNamespace(), path, None, dtype, CPU, Settings())


class Bicubic(torch.nn.Module):
    """A network whose result depends on the pixels around, and not on the tiles."""

    scale = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(pixels.shape[2:]))
        return torch.nn.functional.interpolate(pixels, scale_factor=self.scale, mode="bicubic").clamp(0, 1)


def test_a_file_is_identified_and_loaded_in_the_number_format_that_it_supports(file: Path) -> None:
    spec.FAMILY.rules[0].recognizes(ModelFiles(file))
    network = load_upscaler(request(file, torch.bfloat16))
    assert (network.scale, next(network.parameters()).dtype) == (2, torch.bfloat16)
    assert next(load_upscaler(request(file, torch.float64)).parameters()).dtype == torch.float32
    result = load_upscaler(request(file))(torch.rand(1, 3, 5, 9))
    assert result.shape == (1, 3, 10, 18)


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.clear() or weights.update(a=torch.ones(1)),
        lambda weights: weights.pop("model.0.weight"),
        lambda weights: weights.update({"model.0.weight": torch.ones(2)}),
        lambda weights: weights.pop("model.1.sub.0.RDB1.conv2.0.weight"),
    ],
)
def test_other_or_damaged_weights_are_refused(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    weights = dict(read_tensors(file)["params_ema"])
    change(weights)
    with pytest.raises(InvalidModel, match=r"a\.pth cannot be loaded by spandrel"):
        from_tensors(weights, "a.pth")


def test_a_load_can_be_canceled(file: Path) -> None:
    weights = read_tensors(file)
    canceled = threading.Event()
    with watch_cancellation(canceled), loading():
        canceled.set()
        with pytest.raises(CanceledException):
            from_tensors(weights, "a.pth")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_networks_of_gray_and_transparent_images(channels: int) -> None:
    seen: list[torch.Tensor] = []

    class Descriptor:
        """Spandrel's description of a network that returns its input."""

        model, scale, input_channels = torch.nn.Identity(), 1, channels

        def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
            seen.append(pixels)
            return pixels

    pixels = torch.rand(1, 3, 2, 2)
    result = ImageToImageNetwork(Descriptor())(pixels)
    assert seen[0].shape[1] == channels
    assert result.shape == (1, 3, 2, 2)
    assert torch.allclose(result.mean(1), pixels.mean(1), atol=1e-6)


@pytest.mark.parametrize(
    ("size", "tile_size"), [((70, 50), 40), ((70, 50), 0), ((70, 50), -1), ((3, 2), 512), ((20, 9), 1)]
)
def test_tiles_are_joined_without_seams(size: tuple[int, int], tile_size: int) -> None:
    image, network = sample_image("RGB", size), Bicubic()
    shares: list[Any] = []
    whole = pipeline.convert_image(network, image, 0, CPU, lambda _: None)
    network.sizes.clear()
    result = pipeline.convert_image(network, image, tile_size, CPU, shares.append)
    assert result.size == (3 * size[0], 3 * size[1])
    side = tile_size if tile_size > 0 else 10_000
    assert set(network.sizes) == {(min(side, size[1]), min(side, size[0]))}
    assert shares[-1] == 1
    assert len(shares) == len(network.sizes)
    if tile_size != 1:
        assert np.abs(np.asarray(result).astype(int) - np.asarray(whole)).max() <= 6


class Models:
    """Loads the file of the tiny network in place of any other."""

    def __init__(self, file: Path, installed: str = "") -> None:
        self.cache, self.file, self.installed = ModelCache(Settings(), "cpu"), file, installed
        self.loads: list[str] = []

    def load(self, model: ModelIdentifierField | str) -> Any:
        self.loads.append(model if isinstance(model, str) else model.name)
        return loaders.load_file(self.cache, self.file, lambda path: load_upscaler(request(path)))

    def search_by_attrs(self, name: str, base: BaseModelType, type: ModelType) -> list[Any]:  # noqa: A002
        return [SimpleNamespace(key="installed")] if name == self.installed else []

    def load_remote_model(self, source: str, loader: Any) -> Any:
        self.loads.append(source)
        return loaders.load_file(self.cache, self.file, loader)


def run(file: Path, kind: Any, image: Image.Image, **fields: Any) -> tuple[Image.Image, FakeContext]:
    context = FakeContext(models=Models(file, fields.pop("installed", "")))
    kind(id="n", image=context.images.put(image), **fields).invoke(context)
    return context.images.last(), context


def test_an_image_passes_a_model_once(file: Path) -> None:
    image = sample_image("RGBA", (24, 18))
    result, context = run(file, nodes.SpandrelImageToImageInvocation, image, image_to_image_model=MODEL, tile_size=12)
    assert (result.mode, result.size) == ("RGB", (48, 36))
    assert context.models.loads == ["Tiny ESRGAN"]
    assert context.util.progress[-1] == ("Upscaling", 1)


@pytest.mark.parametrize(
    ("scale", "fit", "size"),
    [(2, False, (38, 26)), (1.5, False, (28, 19)), (3, True, (56, 32)), (0.4, True, (8, 8)), (5, False, (95, 65))],
)
def test_an_image_passes_a_model_until_it_is_as_large_as_requested(
    file: Path, scale: float, fit: bool, size: tuple[int, int]
) -> None:
    kind, image = nodes.SpandrelImageToImageAutoscaleInvocation, sample_image("RGB", (19, 13))
    fields = {"image_to_image_model": MODEL, "scale": scale, "fit_to_multiple_of_8": fit}
    assert run(file, kind, image, **fields)[0].size == size


def test_results_over_the_limits_are_refused_before_the_computation(file: Path) -> None:
    context = FakeContext(models=Models(file))
    context.config.settings = Settings(limits=Limits(image_side=100))
    image = context.images.put(sample_image("RGB", (60, 8)))
    for node in (
        nodes.SpandrelImageToImageInvocation(id="n", image=image, image_to_image_model=MODEL),
        nodes.SpandrelImageToImageAutoscaleInvocation(id="n", image=image, image_to_image_model=MODEL, scale=16),
        nodes.ESRGANInvocation(id="n", image=image, model_name="RealESRGAN_x2plus.pth"),
    ):
        with pytest.raises(SizeOverLimit, match="over the limit"):
            node.invoke(context)
    assert context.images.saved == []


def test_real_esrgan_is_the_installed_model_or_a_downloaded_one(file: Path) -> None:
    fields = {"model_name": "RealESRGAN_x2plus.pth", "tile_size": 0}
    image = sample_image("RGB", (9, 7))
    result, context = run(file, nodes.ESRGANInvocation, image, installed="RealESRGAN_x2plus", **fields)
    assert context.models.loads == ["installed"]
    downloaded, context = run(file, nodes.ESRGANInvocation, image, **fields)
    assert downloaded.tobytes() == result.tobytes()
    assert context.models.loads == [f"{nodes.RELEASES}/v0.2.1/RealESRGAN_x2plus.pth"]
    starters = (Path(spec.__file__).with_name("starters.yaml")).read_text()
    for name, version in nodes.ESRGAN_VERSIONS.items():
        assert f"{nodes.RELEASES}/{version}/{name}" in starters
