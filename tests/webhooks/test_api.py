"""Routes of webhooks: what users see and change, invalid requests, limits, tests and the list of deliveries."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import Depends

from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.server.http import bodies, errors
from invokeclone.users.current import identify
from invokeclone.webhooks import sender as sender_module
from invokeclone.webhooks.api import router
from invokeclone.webhooks.sender import WebhookSender
from tests.accounts import account
from tests.webhooks.conftest import Hooks, Receiver, until

Clients = dict[str, httpx.AsyncClient]


@pytest.fixture
async def clients(resources: Resources) -> AsyncIterator[Clients]:
    """Return a client each for alice, bob and an administrator."""
    resources = replace(resources, settings=resources.settings.model_copy(update={"multiuser": True}))
    app = Application(dependencies=[Depends(identify)])
    app.services.add(Resources, resources)
    sender = app.services.add(WebhookSender, WebhookSender(resources))
    errors.install(app)
    app.include_router(bodies.read_strictly(router))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(sender.stop)
        opened = {}
        for name in ("alice", "bob", "admin"):
            user = await account(resources.database, name, is_admin=name == "admin")
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://test/api/v1/webhooks/", headers=user.headers
            )
            opened[name] = await stack.enter_async_context(client)
        yield opened


async def create(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("", json={"url": "https://example.com/hook", **body})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_the_secret_is_shown_once(clients: Clients) -> None:
    created = await create(clients["alice"], events=["item_failed", "item_failed"], description="d")
    assert created["secret"].startswith("whsec_")
    assert (created["events"], created["description"], created["disabled_at"]) == (["item_failed"], "d", None)
    assert created["created_at"].endswith("Z")
    listed = (await clients["alice"].get("")).json()
    assert listed == [{name: value for name, value in created.items() if name != "secret"}]
    assert (await clients["alice"].get(created["webhook_id"])).json() == listed[0]


async def test_users_see_their_own_webhooks_and_administrators_all(clients: Clients) -> None:
    created = await create(clients["alice"])
    await create(clients["bob"])
    path = created["webhook_id"]
    for name, number in (("alice", 1), ("bob", 1), ("admin", 2)):
        assert len((await clients[name].get("")).json()) == number
    for request in (("GET", path), ("GET", f"{path}/deliveries"), ("POST", f"{path}/test"), ("POST", f"{path}/enable"), ("DELETE", path)):  # fmt: skip
        assert (await clients["bob"].request(*request)).status_code == 403, request
    assert (await clients["admin"].delete(path)).status_code == 204
    for request in (("GET", path), ("DELETE", path), ("POST", f"{path}/test"), ("GET", f"{path}/deliveries")):
        assert (await clients["alice"].request(*request)).status_code == 404, request


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"url": "ftp://example.com"}, 400, "not an HTTP(S) URL"),
        ({"url": "example.com"}, 400, "not an HTTP(S) URL"),
        ({"url": "http://[::1"}, 400, "not a valid URL"),
        ({"url": "http://example.com/a b"}, 400, "a space or a control character"),
        ({"url": "http://example.com/a\r\nX-Y: z"}, 400, "a space or a control character"),
        ({"url": "http://example.com:99999/"}, 400, "not a valid URL"),
        ({"url": "https://user:word@example.com"}, 400, "user name or password"),
        ({"url": ""}, 400, "not an HTTP(S) URL"),
        ({"url": "https://example.com/" + "x" * 2000}, 422, "2000"),
        ({"url": "https://example.com", "events": []}, 422, "at least 1"),
        ({"url": "https://example.com", "events": ["everything"]}, 422, "batch_done"),
        ({"url": "https://example.com", "secret": "mine"}, 422, "secret"),
        ({}, 422, "url"),
    ],
)
async def test_invalid_webhooks_are_refused(clients: Clients, body: dict[str, Any], status: int, text: str) -> None:
    answer = await clients["alice"].post("", json=body)
    assert answer.status_code == status, answer.text
    assert text in answer.text
    assert (await clients["alice"].get("")).json() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.1.2.3", "169.254.169.254", "[::1]", "printer.local"])
async def test_private_addresses_are_refused(resources: Resources, clients: Clients, host: str) -> None:
    app = clients["alice"]._transport.app  # type: ignore[attr-defined]
    settings = resources.settings.model_copy(update={"allow_private_webhook_urls": False})
    app.services.add(WebhookSender, WebhookSender(replace(resources, settings=settings)))
    answer = await clients["alice"].post("", json={"url": f"http://{host}/"})
    assert answer.status_code == 400
    assert "allow_private_webhook_urls" in answer.json()["detail"]


async def test_a_test_is_sent_at_once_and_reports_the_response(clients: Clients, receiver: Receiver) -> None:
    created = await create(clients["alice"], url=receiver.url())
    receiver.statuses = [200, 403]
    path = f"{created['webhook_id']}/test"
    assert (await clients["alice"].post(path)).json() == {"delivered": True, "response_status": 200, "error": None}
    assert (await clients["alice"].post(path)).json() == {
        "delivered": False,
        "response_status": 403,
        "error": "the response has the status 403",
    }
    assert [body["type"] for body in receiver.bodies] == ["webhook_test"] * 2


async def test_slow_tests_of_a_user_do_not_hold_up_others(
    clients: Clients, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.held = {"/slow"}
    slow = f"{(await create(clients['alice'], url=receiver.url('/slow')))['webhook_id']}/test"
    fast = f"{(await create(clients['bob'], url=receiver.url('/fast')))['webhook_id']}/test"
    running = [asyncio.create_task(clients["alice"].post(slow)) for _ in range(sender_module.CONCURRENT_TESTS_PER_USER)]
    await until(lambda: len(receiver.received) == len(running))
    refused = await clients["alice"].post(slow)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert "2 tests of yours are running" in refused.json()["detail"]
    assert (await clients["bob"].post(fast)).json()["delivered"]
    monkeypatch.setattr(sender_module, "CONCURRENT_TESTS", len(running))
    refused = await clients["bob"].post(fast)
    assert refused.status_code == 429
    assert "2 tests of all users are running" in refused.json()["detail"]
    receiver.go.set()
    assert [answer.json()["delivered"] for answer in await asyncio.gather(*running)] == [True, True]
    for client, path in ((clients["alice"], slow), (clients["bob"], fast)):
        assert (await client.post(path)).json()["delivered"]


async def test_deliveries_are_listed_and_a_disabled_webhook_is_enabled(
    clients: Clients, receiver: Receiver, hooks: Hooks, start_sender: Any
) -> None:
    webhook_id = (await create(clients["alice"], url=receiver.url()))["webhook_id"]
    receiver.statuses = [410]
    await hooks.emit(webhook_id)
    await start_sender()
    await hooks.settled()
    (delivery,) = (await clients["alice"].get(f"{webhook_id}/deliveries")).json()
    assert (delivery["event"], delivery["attempts"], delivery["response_status"]) == ("batch_done", 1, 410)
    assert "body" not in delivery
    assert (await clients["alice"].get(webhook_id)).json()[
        "disabled_reason"
    ] == "the URL responded that it is gone (410)"
    enabled = (await clients["alice"].post(f"{webhook_id}/enable")).json()
    assert (enabled["disabled_at"], enabled["disabled_reason"], enabled["failing_since"]) == (None, None, None)
