"""Videos to send, and a client that sends them."""

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from fractions import Fraction
from typing import Any

import av
import httpx
import pytest
from PIL import Image

from invokeclone.boards.api import router as boards_router
from invokeclone.boards.videos_api import router as board_videos_router
from invokeclone.images.api import router as images_router
from invokeclone.images.gallery.api import router as gallery_router
from invokeclone.images.videos.api import router as videos_router
from invokeclone.kit.resources import Resources
from tests.applications import serving

Upload = Callable[..., Awaitable[Any]]
ROUTERS = (videos_router, gallery_router, images_router, boards_router, board_videos_router)


def encode_video(
    size: tuple[int, int] = (64, 48),
    frames: int = 12,
    codec: str = "libx264",
    container: str = "mp4",
    colour: tuple[int, int, int] = (200, 30, 30),
) -> bytes:
    """Return a video of one colour, eight frames a second."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=Fraction(8))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_image(Image.new("RGB", size, colour))
        for number in range(frames):
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.fixture(scope="session")
def mp4() -> bytes:
    return encode_video()


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(resources, *ROUTERS) as served:
        yield served


@pytest.fixture
def upload(client: httpx.AsyncClient, mp4: bytes) -> Upload:
    """Upload a video and return its record; `status` is what is expected."""

    async def send(
        data: bytes | None = None,
        *,
        status: int = 201,
        name: str = "v.mp4",
        content_type: str = "video/mp4",
        form: dict[str, str] | None = None,
        **query: Any,
    ) -> Any:
        answer = await client.post(
            "/api/v1/videos/upload",
            params={"video_category": "general", "is_intermediate": "false", **query},
            files={"file": (name, mp4 if data is None else data, content_type)},
            data=form or {},
        )
        assert answer.status_code == status, answer.text
        return answer.json()

    return send
