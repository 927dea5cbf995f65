"""Control images made to fit: their proportions, their borders, their modes."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from invokeclone.components.control.images import prepare


def blocks() -> Image.Image:
    """Return 40 x 20 pixels: red, four columns of green at each side, and a blue border one pixel wide."""
    image = Image.new("RGB", (40, 20), (0, 0, 200))
    image.paste((200, 0, 0), (1, 1, 39, 19))
    image.paste((0, 200, 0), (1, 1, 5, 19))
    image.paste((0, 200, 0), (35, 1, 39, 19))
    return image


def bytes_of(image: Image.Image, size: tuple[int, int], mode: Any) -> np.ndarray:
    values = prepare(image, size, mode)
    assert values.dtype == np.float32
    assert values.shape == (size[1], size[0], 3)
    assert 0 <= values.min() <= values.max() <= 1
    return np.rint(values * 255).astype(int)


def test_just_resize_ignores_the_aspect_ratio() -> None:
    result = bytes_of(blocks(), (40, 40), "just_resize")
    assert result[20, 20].tolist() == [200, 0, 0]
    assert result[20, 2].tolist() == result[20, 37].tolist() == [0, 200, 0]


def test_crop_resize_crops_the_center() -> None:
    result = bytes_of(blocks(), (20, 20), "crop_resize")
    assert np.array_equal(result, np.asarray(blocks().crop((10, 0, 30, 20))).astype(int))


def test_fill_resize_pads_with_the_border_color() -> None:
    result = bytes_of(blocks(), (40, 41), "fill_resize")
    assert np.array_equal(result[10:30], np.asarray(blocks()).astype(int))
    assert (result[:10] == [0, 0, 200]).all()
    assert (result[30:] == [0, 0, 200]).all()


def test_simple_mode_uses_lanczos() -> None:
    expected = np.asarray(blocks().resize((30, 50), Image.Resampling.LANCZOS)).astype(int)
    assert np.array_equal(bytes_of(blocks(), (30, 50), "just_resize_simple"), expected)


@pytest.mark.parametrize("mode", ["just_resize", "crop_resize", "fill_resize"])
def test_transparency_is_blended_onto_white(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    image.paste((10, 20, 30, 255), (0, 0, 8, 4))
    image.putpixel((0, 7), (100, 100, 100, 128))
    result = bytes_of(image, (8, 8), mode)
    assert result[0, 0].tolist() == [10, 20, 30]
    assert result[7, 7].tolist() == [255, 255, 255]
    assert result[7, 0].tolist() == [177, 177, 177], "100 · 128 + 255 · 127 by 255, without its fraction"


@pytest.mark.parametrize("image_mode", ["L", "1", "P", "LA", "I", "F"])
@pytest.mark.parametrize("mode", ["just_resize", "crop_resize", "fill_resize", "just_resize_simple"])
def test_images_of_any_mode(image_mode: str, mode: str) -> None:
    image = Image.new("L", (30, 20))
    image.paste(255, (0, 0, 15, 20))
    result = bytes_of(image.convert(image_mode), (64, 48), mode)
    assert (result[24, 16] == 255).all()
    assert (result[24, 48] == 0).all()


@pytest.mark.parametrize("mode", ["just_resize", "crop_resize", "fill_resize", "just_resize_simple"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (300, 2)])
def test_images_of_any_proportions(size: tuple[int, int], mode: str) -> None:
    assert (bytes_of(Image.new("RGB", size, (9, 90, 200)), (64, 32), mode) == [9, 90, 200]).all()
