"""Unusual image files through every way into the server: what is stored, shown and given to models looks like the file."""

import asyncio
import base64
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.datastructures import FormData, Headers, UploadFile

from invokeclone.boards.api import router as boards_router
from invokeclone.cli import generate_inputs
from invokeclone.graph.prompts import Prompt
from invokeclone.graph.recipes import ImageSettings
from invokeclone.images import service
from invokeclone.images.api import router as images_router
from invokeclone.images.encoding import record_images
from invokeclone.images.errors import NotAnImage
from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.files.image_modes import convert
from invokeclone.kit.resources import Resources
from invokeclone.models.records import model_images
from invokeclone.nodes.images.basic import convert_mode
from invokeclone.queue.generation import ResolvedRequest
from invokeclone.shims import image_io, init_images
from invokeclone.shims.automatic1111 import extras, generate, inpainting
from invokeclone.shims.automatic1111.schemas import ImageToImage, Upscale
from invokeclone.shims.comfyui.routes import images as comfyui
from invokeclone.shims.gemini.requests import GenerateContent
from invokeclone.users.current import SYSTEM
from invokeclone.worker.backend.local import LocalItem
from invokeclone.worker.interfaces.images import WorkerImages
from tests.applications import serving
from tests.images.unusual_files import UnusualFile, unusual_files

Seen = tuple[Image.Image, Any, float]
"""An image, the RGBA that it must show, and the mean difference allowed beside that of the file."""
Way = Callable[["Server", UnusualFile], Awaitable[list[Seen]]]
LOSSY = 9.0
"""For thumbnails, which are lossy WebP."""


@dataclass(frozen=True)
class Server:
    """A server's parts that images come in through."""

    resources: Resources
    client: httpx.AsyncClient


def difference(image: Image.Image, expected: Any) -> float:
    """Return the mean difference of two images in RGBA, not counting colors that nobody sees."""
    pixels = np.asarray(image if image.mode == "RGBA" else convert(image, "RGBA"), dtype=float)
    if pixels.shape != expected.shape:
        return 255.0
    away = np.abs(pixels - expected)
    away[..., :3] *= np.minimum(pixels[..., 3:], expected[..., 3:]) / 255
    return float(away.mean())


def on_white(pixels: Any) -> Any:
    """Return RGBA pixels over white."""
    alpha = pixels[..., 3:] / 255
    colors = np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha))
    return np.dstack([colors, np.full(pixels.shape[:2], 255)])


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


async def stored(resources: Resources, name: str) -> Image.Image:
    return opened((await service.file(resources, name)).read())


async def uploaded(server: Server, file: UnusualFile) -> Any:
    response = await server.client.post(
        "/api/v1/images/upload",
        params={"image_category": "user", "is_intermediate": "false"},
        files={"file": ("x", file.data, file.mime)},
    )
    if response.status_code == 415:
        raise NotAnImage(response.json()["detail"])
    assert response.status_code == 201, response.text
    return response.json()


async def upload(server: Server, file: UnusualFile) -> list[Seen]:
    """Upload to InvokeAI's route: the stored file keeps the pixels as they are; thumbnails, also new ones, are upright."""
    record = await uploaded(server, file)
    full = opened((await server.client.get(record["image_url"])).content)
    small = opened((await server.client.get(record["thumbnail_url"])).content)
    again = opened(await service.regenerate_thumbnail(server.resources, record["image_name"]))
    assert (record["width"], record["height"]) == full.size == file.expected.shape[1::-1]  # type: ignore[union-attr]
    return [(full, file.expected, 0), (small, file.upright, LOSSY), (again, file.upright, LOSSY)]


async def nodes(server: Server, file: UnusualFile) -> list[Seen]:
    """Read an uploaded file in nodes: upright, with its size, in the mode that they ask for."""
    resources = server.resources
    name = (await uploaded(server, file))["image_name"]
    loop = asyncio.get_running_loop()
    cached: dict[str, Image.Image] = {}
    tools = SimpleNamespace(
        resources=resources,
        images=SimpleNamespace(get=cached.get, keep=cached.__setitem__),
        wait=lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(),
    )
    item: Any = SimpleNamespace(user_id=SYSTEM.user_id)
    session: Any = SimpleNamespace(tools=tools, user=SYSTEM, backend=LocalItem(resources, item, 0))
    images = WorkerImages(session, None, None)  # type: ignore[arg-type]
    whole = await asyncio.to_thread(images.get_pil, name)
    record = await asyncio.to_thread(images.get_dto, name)
    assert (record.width, record.height) == whole.size
    opaque = np.dstack([file.upright[..., :3], np.full(whole.size[::-1], 255)])
    gray = np.asarray(Image.fromarray(file.upright).convert("L"))
    as_float = np.asarray(await asyncio.to_thread(images.get_pil, name, "F"))
    assert np.abs(as_float / (257 if as_float.max() > 255 else 1) - gray).mean() <= file.tolerance + 1
    clear = file.upright.copy()
    return [
        (whole, file.upright, 0),
        (await asyncio.to_thread(images.get_pil, name, "RGBA"), clear, 0),
        (convert_mode(whole, "RGB"), opaque, 0),
        (convert_mode(whole, "L"), np.dstack([gray, gray, gray, opaque[..., 3]]), 1),
    ]


async def automatic1111(server: Server, file: UnusualFile) -> list[Seen]:
    """Send initial images, and images to upscale."""
    text = base64.b64encode(file.data).decode()
    image = await generate._decode_image(server.resources, f"data:{file.mime};base64,{text}", "init_images")
    request = ImageToImage(init_images=[text])
    inputs = inpainting.arrange(image, None, request, image.size)
    init_image, _, _ = await inpainting.save_images(server.resources, SYSTEM, inputs, request, 0.5)
    whole = await extras.upscale_base64(server.resources, text, Upscale(), "png", "image")
    larger = await extras.upscale_base64(server.resources, text, Upscale(upscaler_1="Nearest"), "png", "image")
    return [
        (await stored(server.resources, init_image.image), on_white(file.upright), 1),
        (opened(base64.b64decode(whole)), file.upright, 0),
        (opened(base64.b64decode(larger)), file.upright.repeat(2, 0).repeat(2, 1), 0),
    ]


async def comfyui_upload(server: Server, file: UnusualFile) -> list[Seen]:
    """Send to `/upload/image`, then LoadImage, which is RGB and the alpha channel; `/view` of an image uploaded elsewhere."""
    sent = UploadFile(io.BytesIO(file.data), filename="x.png", headers=Headers({"content-type": file.mime}))
    upload = await comfyui._read_upload(server.resources, FormData([("image", sent)]))
    name = await image_io.save_intermediate(server.resources, upload.image, SYSTEM)
    other = (await uploaded(server, file))["image_name"]
    viewed = opened(await image_io.read_image_file(server.resources, other))
    return [(await stored(server.resources, name), file.upright, 0), (viewed, file.upright, 0)]


async def openai_edit(server: Server, file: UnusualFile) -> list[Seen]:
    return await _as_init_image(server, file, await image_io.decode_image(server.resources, file.data, "image"))


async def gemini(server: Server, file: UnusualFile) -> list[Seen]:
    blob = {"inlineData": {"mimeType": file.mime, "data": base64.b64encode(file.data).decode()}}
    body = GenerateContent.model_validate({"contents": [{"parts": [{"text": "x"}, blob]}]})
    (data,) = body.image_files(server.resources.settings.limits)
    return await _as_init_image(server, file, await image_io.decode_image(server.resources, data, "contents"))


async def command_line(server: Server, file: UnusualFile) -> list[Seen]:
    path = server.resources.settings.outputs_path / "file"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.data)
    return await _as_init_image(server, file, await generate_inputs._read(server.resources, path))


async def _as_init_image(server: Server, file: UnusualFile, image: Image.Image) -> list[Seen]:
    settings = ImageSettings({}, Prompt.plain("x"), 1, *image.size, 5, 5.0, "euler")
    config: Any = None
    resolved = await init_images.with_init_image(
        server.resources, SYSTEM, ResolvedRequest(settings, [1], [], config), image, 0.5
    )
    assert resolved.settings.init_image is not None
    return [(await stored(server.resources, resolved.settings.init_image.image), on_white(file.upright), 1)]


async def record_thumbnails(server: Server, file: UnusualFile) -> list[Seen]:
    """Make thumbnails of workflows and style presets, and images of models."""
    made = await record_images.make(file.data, file.mime, server.resources.settings.limits)
    model_images.save(server.resources.settings, "key", file.data)
    return [
        (opened(made), file.upright, LOSSY),
        (opened(model_images.find(server.resources.settings, "key").read_bytes()), file.upright, LOSSY),
    ]


WAYS: list[Way] = [
    upload, nodes, automatic1111, comfyui_upload, openai_edit, gemini, command_line, record_thumbnails
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])
async def test_every_file_looks_the_same(way: Way, resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init_images, "require_capability", lambda *_: None)
    async with serving(resources, images_router, boards_router) as client:
        assert await _wrong(Server(resources, client), way) == {}


async def _wrong(server: Server, way: Way) -> dict[str, str]:
    """Return what is wrong with each file that does not look as it should."""
    wrong = {}
    for name, file in unusual_files().items():
        if file.expected is None:
            with pytest.raises(InvokeCloneError, match=r"damaged|format|empty|cannot be read"):
                await way(server, file)
            continue
        try:
            seen = await way(server, file)
        except (InvokeCloneError, OSError, ValueError, TypeError, KeyError) as error:
            wrong[name] = f"{type(error).__name__}: {error}"
            continue
        found = [
            round(difference(image, expected), 2)
            for image, expected, allowed in seen
            if difference(image, expected) > file.tolerance + allowed
        ]
        if found:
            wrong[name] = f"{[image.mode for image, _, _ in seen]} {found}"
    return wrong


def test_there_are_over_sixty_files_of_all_formats() -> None:
    names = unusual_files()
    assert len(names) > 100
    assert {name.split()[0] for name in names} >= {
        "png", "jpeg", "webp", "avif", "gif", "bmp", "tiff", "ppm", "tga", "ico", "jp2", "pcx", "dds"
    }  # fmt: skip
