"""One real server with the embedded model for all dialects; each test leaves it without items that run."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw

from tests.server_process import Server


@pytest.fixture(scope="session")
def server(shared_server: Server) -> Server:
    return shared_server


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    """Return a client of the server's root."""
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


@pytest.fixture
def enqueued(http: httpx.Client) -> Any:
    """Return how many items the queue has ever been given, to show that a refusal enqueued nothing."""

    def count() -> int:
        status = http.get("/api/v1/queue/default/status").json()["queue"]
        return int(status["total"])

    return count


def read_image(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def from_base64(text: str) -> Image.Image:
    return read_image(base64.b64decode(text, validate=True))


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def circle_image(side: int = 128) -> Image.Image:
    """Return a picture to begin with."""
    image = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(image).ellipse((side // 4, side // 4, side * 3 // 4, side * 3 // 4), fill=(220, 30, 30))
    return image


def mean_color(image: Image.Image, box: tuple[int, int, int, int] | None = None) -> tuple[float, float, float]:
    """Return the mean red, green and blue of a picture or of a part of it."""
    part = (image.crop(box) if box else image).convert("RGB").resize((1, 1), Image.Resampling.BOX)
    red, green, blue = part.getpixel((0, 0))  # type: ignore[misc]
    return float(red), float(green), float(blue)


def object_color(image: Image.Image) -> tuple[float, float, float]:
    """Return the mean color of the middle of a picture, where the embedded model puts its object."""
    width, height = image.size
    return mean_color(image, (width * 2 // 5, height * 2 // 5, width * 3 // 5, height * 3 // 5))
