"""A client of the image routes, and a way to upload with it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from invokeclone.boards.api import router as boards_router
from invokeclone.images.api import router as images_router
from invokeclone.kit.resources import Resources
from tests.applications import encode_image, sample_image, serving

Upload = Callable[..., Awaitable[Any]]


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(resources, images_router, boards_router) as served:
        yield served


@pytest.fixture
def upload(client: httpx.AsyncClient) -> Upload:
    """Upload a picture and return its record; `status` is what is expected."""

    async def send(
        data: bytes | None = None,
        *,
        status: int = 201,
        content_type: str = "image/png",
        form: dict[str, str] | None = None,
        **query: Any,
    ) -> Any:
        answer = await client.post(
            "/api/v1/images/upload",
            params={"image_category": "general", "is_intermediate": "false", **query},
            files={"file": ("x.png", encode_image(sample_image()) if data is None else data, content_type)},
            data=form or {},
        )
        assert answer.status_code == status, answer.text
        return answer.json()

    return send
