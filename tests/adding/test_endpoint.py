"""An endpoint is a function in `api.py` and one in `store.py`: here a small package with both; errors and connections need no code."""

import httpx
from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import NotFound
from invokeclone.kit.requests import Read, Write
from invokeclone.server.app import create_app
from invokeclone.tables import app_state

router = APIRouter(prefix="/api/v1/facts")


class FactNotFound(NotFound):
    """There is no such fact."""


async def get(connection: AsyncConnection, key: str) -> str:
    value = (await connection.execute(select(app_state.c.value).where(app_state.c.key == key))).scalar_one_or_none()
    if value is None:
        raise FactNotFound(f"no fact {key}")
    return str(value)


async def insert_fact(connection: AsyncConnection, key: str, value: str) -> None:
    await connection.execute(app_state.insert().values(key=key, value=value))


@router.get("/{key}")
async def get_fact(connection: Read, key: str) -> str:
    """Get a fact."""
    return await get(connection, key)


@router.put("/{key}")
async def store_fact(connection: Write, key: str, value: str) -> None:
    """Keep a fact."""
    await insert_fact(connection, key, value)


async def test_an_endpoint_needs_only_two_functions(settings: Settings) -> None:
    app = create_app(settings, worker_command=None)
    app.include_router(router)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client,
    ):
        missing = await client.get("/api/v1/facts/moon")
        assert (missing.status_code, missing.json()) == (404, {"detail": "no fact moon"})
        assert (await client.put("/api/v1/facts/moon", params={"value": "round"})).status_code == 200
        assert (await client.get("/api/v1/facts/moon")).json() == "round"
