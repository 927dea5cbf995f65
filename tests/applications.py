"""Applications of a few routers on the resources of a test, and images to send to them."""

import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import APIRouter
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.kit.workers import Workers
from invokeclone.server.http import bodies, errors


class RunningWorkers:
    """Workers that run and respond with nothing."""

    def require_running(self) -> None:
        pass

    async def ask_all(self, name: str, body: dict[str, Any] | None = None, seconds: float = 10.0) -> list[Any]:
        return []

    async def ask_one(self, name: str, body: dict[str, Any], seconds: float, *, startup_s: float = 0.0) -> Any:
        raise AssertionError(name)


@asynccontextmanager
async def serving(
    resources: Resources, *routers: APIRouter, parts: Mapping[type, object] | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the routers and yield a client; `parts` are the services that they need besides resources."""
    app = Application(generate_unique_id_function=lambda route: route.name)
    app.services.add(Resources, resources)
    for kind, part in {Workers: RunningWorkers(), **(parts or {})}.items():
        app.services.add(kind, part)
    errors.install(app)
    for router in routers:
        app.include_router(bodies.read_strictly(router))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def sample_image(mode: str = "RGB", size: tuple[int, int] = (48, 32), *, flat: bool = False) -> Image.Image:
    """Return an image of gradients, or of one color."""
    if flat:
        return Image.new(mode, size, 120)
    grey = Image.linear_gradient("L").resize(size)
    return Image.merge("RGB", (grey, grey.rotate(90), grey.rotate(180))).convert(mode)


def encode_image(
    image: Image.Image, kind: str = "PNG", texts: dict[str, str] | None = None, **options: object
) -> bytes:
    """Return an image as the bytes of a file."""
    buffer = io.BytesIO()
    if texts:
        info = PngInfo()
        for key, text in texts.items():
            info.add_text(key, text)
        options["pnginfo"] = info
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode_image(data: bytes) -> Image.Image:
    """Return bytes as an image, read in full."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
