"""Records of images and videos without files, and a client of the galleries."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import insert

from invokeclone.boards.api import router as boards_router
from invokeclone.images.api import router as images_router
from invokeclone.images.gallery.api import router as gallery_router
from invokeclone.kit.resources import Resources
from invokeclone.tables import boards, images, videos
from tests.applications import serving

Fill = Callable[..., Awaitable[None]]


def row(word: str, name: str, at: str = "2026-01-01 00:00:00.000", **columns: Any) -> dict[str, Any]:
    """Return the columns of a record."""
    category, origin = columns.pop("category", "general"), columns.pop("origin", "internal")
    defaults = {"is_intermediate": False, "starred": False, "board_id": None, "metadata": None, "user_id": "system"}
    video_columns = {"duration": 1.5, "fps": 8.0} if word == "video" else {}
    named = {f"{word}_name": name, f"{word}_origin": origin, f"{word}_category": category}
    return {
        **named,
        "width": 4,
        "height": 3,
        "created_at": at,
        "updated_at": at,
        **video_columns,
        **defaults,
        **columns,
    }


@pytest.fixture
def fill(resources: Resources) -> Fill:
    """Make records of images, videos and boards."""

    async def make(
        image: list[dict[str, Any]] = (), video: list[dict[str, Any]] = (), board: dict[str, Any] | None = None
    ) -> None:
        times = {"created_at": "2026-01-01 00:00:00.000", "updated_at": "2026-01-01 00:00:00.000"}
        async with resources.database.write() as connection:
            for board_id, values in (board or {}).items():
                await connection.execute(
                    insert(boards).values(board_id=board_id, board_name=board_id, **times, **values)
                )
            if image:
                await connection.execute(insert(images), list(image))
            if video:
                await connection.execute(insert(videos), list(video))

    return make


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(resources, gallery_router, images_router, boards_router) as served:
        yield served
