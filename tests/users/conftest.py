"""Accounts to test with: the routes on a small application in multi-user mode, cheap hashes, and a client per person."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import Depends

from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.server.http import bodies, errors
from invokeclone.server.http.token_renewal import TokenRenewal
from invokeclone.users import passwords
from invokeclone.users.api import router
from invokeclone.users.current import identify

PASSWORD = "Right-Passw0rd"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make hashes that cost next to nothing."""
    monkeypatch.setattr(passwords, "ROUNDS", 1)
    monkeypatch.setattr(passwords, "MEMORY_KIB", 8)
    passwords._hasher.cache_clear()
    passwords._dummy_hash.cache_clear()


@pytest.fixture
def multiuser(resources: Resources) -> Resources:
    return replace(resources, settings=resources.settings.model_copy(update={"multiuser": True}))


@pytest.fixture
def app(multiuser: Resources) -> Application:
    application = Application(dependencies=[Depends(identify)])
    application.services.add(Resources, multiuser)
    errors.install(application)
    application.include_router(bodies.read_strictly(router))
    application.add_middleware(TokenRenewal)
    return application


Visit = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def visit(app: Application) -> AsyncIterator[Visit]:
    """Lend clients, each with cookies of its own."""
    opened = []

    def make(token: str | None = None, address: str = "1.2.3.4", base: str = "http://test") -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 1))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        client = httpx.AsyncClient(transport=transport, base_url=f"{base}/api/v1/auth/", headers=headers)
        opened.append(client)
        return client

    yield make
    for client in opened:
        await client.aclose()


class SignedInClients:
    """Makes accounts and signs them in."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self.ids: dict[str, str] = {}

    async def sign_in(self, name: str, **fields: Any) -> httpx.AsyncClient:
        """Return a client that carries the token of `name`@example.com."""
        client = self._visit()
        answer = await client.post("login", json={"email": f"{name}@example.com", "password": PASSWORD, **fields})
        assert answer.status_code == 200, answer.text
        self.ids[name] = answer.json()["user"]["user_id"]
        client.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        return client

    async def admin(self) -> httpx.AsyncClient:
        """Set the first admin up and sign them in."""
        body = {"email": "admin@example.com", "display_name": "Admin", "password": PASSWORD}
        answer = await self._visit().post("setup", json=body)
        assert answer.status_code == 200, answer.text
        return await self.sign_in("admin")

    async def user(self, admin: httpx.AsyncClient, name: str, **fields: Any) -> httpx.AsyncClient:
        """Have `admin` make an account, and sign it in."""
        body = {"email": f"{name}@example.com", "password": PASSWORD, **fields}
        answer = await admin.post("users", json=body)
        assert answer.status_code == 201, answer.text
        return await self.sign_in(name)


@pytest.fixture
def people(visit: Visit) -> SignedInClients:
    return SignedInClients(visit)
