"""The configured limits, not the defaults, count wherever a compatibility API or a record reads an image."""

import base64
import io

import pytest
from PIL import Image

from invokeclone.images.encoding import record_images
from invokeclone.images.errors import TooManyPixels
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.resources import Resources
from invokeclone.models.records import model_images
from invokeclone.shims import image_io
from invokeclone.shims.compat_api import RequestRejected

SMALL = Limits(image_pixels=1023)


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "PNG")
    return file.getvalue()


async def test_compatibility_api_images_have_a_limit(resources: Resources) -> None:
    assert (await image_io.decode_image(resources, png(), "image")).size == (32, 32)
    resources.settings = resources.settings.model_copy(update={"limits": SMALL})
    with pytest.raises(RequestRejected, match="image_pixels"):
        await image_io.decode_image(resources, png(), "image")


async def test_preset_and_workflow_images_have_a_limit() -> None:
    assert await record_images.make(png(), "image/png", Limits())
    with pytest.raises(TooManyPixels, match="image_pixels"):
        await record_images.make(png(), "image/png", SMALL)


def test_model_images_have_a_limit(settings: Settings) -> None:
    with pytest.raises(model_images.InvalidModelImage, match="limit of 1023 pixels"):
        model_images.save(settings.model_copy(update={"limits": SMALL}), "key", png())


@pytest.mark.parametrize("length", [3 * 2**18, 3 * 2**18 + 1, 2**20 + 7, 5])
def test_base64_is_decoded_in_slices(length: int) -> None:
    data = bytes(range(256)) * (length // 256 + 1)
    data = data[:length]
    text = base64.b64encode(data).decode()
    broken = "\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    assert image_io.decode_base64(text, "image") == image_io.decode_base64(broken, "image") == data
    urlsafe = base64.urlsafe_b64encode(data).decode()
    for sent in (
        urlsafe,
        urlsafe.rstrip("="),
        text.rstrip("="),
        f"data:image/png;base64,{urlsafe}",
        broken.rstrip("="),
    ):
        assert image_io.decode_base64(sent, "image") == data


@pytest.mark.parametrize(
    "tail", ["=", "A", "A=", "AA=", "A===", "AA=A", "AA===", "AA====", "AAAA====", "!AAA", "====" + "A" * 2**20]
)
def test_invalid_base64_is_refused(tail: str) -> None:
    with pytest.raises(RequestRejected, match="base64"):
        image_io.decode_base64("A" * 2**20 + tail, "image")
