"""Accounts to test rights with: an application that asks as whoever a request's header names."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx
from fastapi import APIRouter, Request
from sqlalchemy import insert

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database
from invokeclone.server.http import bodies, errors
from invokeclone.tables import users
from invokeclone.users.current import SYSTEM, User, current_user, media_user

ADMIN = User(user_id="root", display_name="Root", is_admin=True)
ANN = User(user_id="ann", display_name="Ann")
BOB = User(user_id="bob", display_name="Bob")
USERS = {user.user_id: user for user in (SYSTEM, ADMIN, ANN, BOB)}


async def _asking(request: Request) -> User:
    return USERS[request.headers.get("asking", "system")]


async def register(database: Database) -> None:
    """Make the accounts."""
    rows = [
        {
            "user_id": user.user_id, "email": f"{user.user_id}@example.com", "display_name": user.display_name,
            "is_admin": user.is_admin, "created_at": "x", "updated_at": "x",
        }
        for user in (ADMIN, ANN, BOB)
    ]  # fmt: skip
    async with database.write() as connection:
        await connection.execute(insert(users), rows)


def multiuser(resources: Resources) -> Resources:
    """Return the resources with accounts switched on."""
    settings = Settings(**{**resources.settings.to_worker(), "multiuser": True})
    return Resources(settings, resources.database, resources.events)


@asynccontextmanager
async def asking(
    resources: Resources, *routers: APIRouter, parts: Mapping[type, object] | None = None
) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """Serve the routers and lend a client for each account, by its id."""
    app = Application(generate_unique_id_function=lambda route: route.name)
    app.services.add(Resources, resources)
    for kind, part in (parts or {}).items():
        app.services.add(kind, part)
    app.dependency_overrides[current_user] = app.dependency_overrides[media_user] = _asking
    errors.install(app)
    for router in routers:
        app.include_router(bodies.read_strictly(router))
    clients = {
        name: httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://test",
            headers={"asking": name},
        )
        for name in USERS
    }
    yield clients
    for client in clients.values():
        await client.aclose()
