"""A client of the board routes, and a way to make boards and images."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from invokeclone.boards.api import router as boards_router
from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import service
from invokeclone.images.api import router as images_router
from invokeclone.kit.resources import Resources
from tests.applications import sample_image, serving

Make = Callable[..., Awaitable[Any]]


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(resources, images_router, boards_router) as served:
        yield served


@pytest.fixture
def board(client: httpx.AsyncClient) -> Make:
    """Make a board and return its id; each has a time of its own, by which they are listed."""

    async def make(name: str = "b") -> str:
        await asyncio.sleep(0.002)
        answer = await client.post("/api/v1/boards/", params={"board_name": name})
        assert answer.status_code == 201
        return answer.json()["board_id"]

    return make


@pytest.fixture
def image(resources: Resources) -> Make:
    """Make an image and return its name."""

    async def make(board_id: str | None = None, category: str = "general", **options: Any) -> str:
        saved_image = await service.save(
            resources,
            sample_image(),
            category=ImageCategory(category),
            origin=ResourceOrigin.INTERNAL,
            board_id=board_id,
            **options,
        )
        return saved_image.image_name

    return make
