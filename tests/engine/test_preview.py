"""Previews: each architecture's own colors, as bytes, through the worker's engine."""

import pytest
import torch
from PIL import Image

from invokeclone.engine import preview
from invokeclone.graph.vocabulary.architectures import LatentSpace, PreviewMatrix
from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.kit.config.settings import Settings
from invokeclone.worker.engine import Engine

Colors = tuple[float, float, float]
NO_BIAS = (0.0, 0.0, 0.0)
WAN = (5.2267, 10.0058, 12.4775), (-0.1835, -0.0868, -0.336)
FLUX = (-1.0997, 0.6883, 0.5593), NO_BIAS
FLUX_2 = (-0.8335, -1.6564, -3.4132), (-0.0329, -0.0718, -0.0851)
SD1 = (-0.8866, 0.9482, -1.9813), NO_BIAS
SDXL = (-1.578, 0.838, -1.4502), NO_BIAS
PUBLISHED = [
    (BaseModelType.StableDiffusion1, 4, *SD1),
    (BaseModelType.StableDiffusion2, 4, *SD1),
    (BaseModelType.StableDiffusionXL, 4, *SDXL),
    (BaseModelType.StableDiffusionXLRefiner, 4, *SDXL),
    (BaseModelType.StableDiffusion3, 16, (-1.826238, 2.530538, 0.205825), NO_BIAS),
    (BaseModelType.Flux, 16, *FLUX),
    (BaseModelType.ZImage, 16, *FLUX),
    (BaseModelType.CogView4, 16, (7.412273, 4.99835, 3.843948), NO_BIAS),
    (BaseModelType.QwenImage, 16, *WAN),
    (BaseModelType.Krea2, 16, *WAN),
    (BaseModelType.Anima, 16, *WAN),
    (BaseModelType.Wan, 16, *WAN),
    (BaseModelType.Wan, 48, (-19.4501, -11.9934, 13.6371), (0.0317, -0.0878, -0.1388)),
    (BaseModelType.Flux2, 32, *FLUX_2),
    (BaseModelType.ErnieImage, 32, *FLUX_2),
]
"""(base, channels, weighted sum of the matrix's rows with weights 1, 2, 3, …, bias), of the published numbers."""
SMOOTHED = {BaseModelType.StableDiffusionXL, BaseModelType.StableDiffusionXLRefiner}


def noise_of(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def engine(settings: Settings) -> Engine:
    return Engine(settings, "cpu")


@pytest.mark.parametrize(("base", "channels", "sums", "bias"), PUBLISHED)
def test_each_architecture_has_its_colors(
    engine: Engine, base: BaseModelType, channels: int, sums: Colors, bias: Colors
):
    scale = 0.04
    frames = (1,) if base is BaseModelType.Anima else ()
    latents = scale * torch.arange(1.0, channels + 1).reshape(1, channels, *frames, 1, 1).expand(-1, -1, *frames, 3, 5)
    image, factor = engine.preview(latents, base)
    assert (image.size, image.mode) == ((5, 3), "RGB")
    assert factor == (16 if channels == 48 else 8)
    for location, share in (((2, 1), 0.9999), ((0, 0), 0.6997)):  # of the smoothing kernel's sum
        values = [scale * value + offset for value, offset in zip(sums, bias, strict=True)]
        if base in SMOOTHED:
            values = [share * value for value in values]
        assert image.getpixel(location) == pytest.approx(
            tuple(int(min(max((value + 1) * 127.5, 0), 255)) for value in values), abs=1
        )


def test_every_architecture_is_in_the_table():
    from invokeclone.models.identify import registry

    declared = {
        (base, space.channels)
        for base, architecture in registry.architectures().items()
        for space in architecture.latent_spaces
    }
    assert declared == {(base, channels) for base, channels, *_ in PUBLISHED}


def space_of(*weights: Colors, **changes: object) -> LatentSpace:
    return LatentSpace(channels=len(weights), preview=PreviewMatrix(weights=weights, **changes))


def test_colors_are_truncated_and_clamped():
    space = space_of((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    latents = torch.tensor([0.0, 0.9999, 5.0]).reshape(3, 1, 1)
    assert preview.preview(latents, space).getpixel((0, 0)) == (127, 254, 255), "127.5 and 254.99 are rounded down"
    assert preview.preview(-latents, space).getpixel((0, 0)) == (127, 0, 0)
    assert preview.preview(torch.full((3, 1, 1), float("nan")), space).getpixel((0, 0)) == (0, 0, 0)


def test_colors_are_smoothed_with_black_around_them():
    kernel = ((0.0, 0.1, 0.0), (0.2, 0.4, 0.0), (0.0, 0.0, 0.3))
    latents = noise_of(1, 1, 1, 4, 5) * 0.3
    image = preview.preview(latents, space_of((1.0, 0.5, -0.5), smoothing=kernel))
    for x in range(5):
        for y in range(4):
            value = sum(
                kernel[1 + dy][1 + dx] * float(latents[0, 0, y + dy, x + dx])
                for dx in (-1, 0, 1)
                for dy in (-1, 0, 1)
                if 0 <= x + dx < 5 and 0 <= y + dy < 4
            )
            expected = tuple(int((weight * value + 1) * 127.5) for weight in (1.0, 0.5, -0.5))
            assert image.getpixel((x, y)) == pytest.approx(expected, abs=1)


def test_previews_show_the_first_frame_of_the_first_row():
    space = space_of((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    latents = noise_of(1, 3, 2, 4, 5) * 0.3
    expected = preview.preview(latents[0], space)
    assert preview.preview(latents, space).tobytes() == expected.tobytes()
    video = torch.stack([latents[0], latents[1]], dim=1)
    assert preview.preview(video[None], space).tobytes() == expected.tobytes()


def test_unknown_latents_are_gray(engine: Engine):
    image, factor = engine.preview(noise_of(1, 1, 7, 3, 2), BaseModelType.Unknown)
    assert (image.size, factor) == ((2, 3), 8)
    red, green, blue = image.getpixel((0, 0))
    assert red == green == blue
    assert preview.preview(noise_of(1, 1, 7, 3, 2), space_of((1.0, 0.0, 0.0))).size == (2, 3)


def test_colors_of_an_unknown_autoencoder_are_fitted():
    def encode(images: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.avg_pool2d(images, 8)
        return torch.cat([0.7 * small - 0.5, small.prod(dim=1, keepdim=True)], dim=1)

    colors = preview.fit(encode)
    image = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(1)) * 2 - 1
    fitted = colors(encode(image).permute(0, 2, 3, 1))
    assert torch.allclose(fitted, torch.nn.functional.avg_pool2d(image, 8).permute(0, 2, 3, 1), atol=1e-3)
    assert colors.fits(4)
    assert not colors.fits(16)
    space, latents = space_of(*[(0.1, 0.2, 0.3)] * 4), noise_of(1, 1, 4, 8, 8)
    with preview.using(colors):
        used: Image.Image = preview.preview(latents, space)
    assert used.tobytes() != preview.preview(latents, space).tobytes()
