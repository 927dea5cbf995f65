"""Sockets in multi-user mode: who is let in, who hears what, once, and who is shown out."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
import socketio
from sqlalchemy.exc import OperationalError

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Bus, Event
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database
from invokeclone.queue.events import (
    BatchEnqueuedEvent,
    InvocationProgressEvent,
    InvocationStartedEvent,
    QueueClearedEvent,
    QueueItemsCanceledEvent,
    QueueItemsRetriedEvent,
    QueueItemStatusChangedEvent,
)
from invokeclone.queue.schemas import BatchStatus, SessionQueueStatus
from invokeclone.server import sockets
from invokeclone.server.socket_sessions import FAILED_CHECKS_LIMIT, SocketSessions
from invokeclone.users import service, signin
from invokeclone.users.schemas import AdminUserUpdateRequest
from tests.accounts import Account, account
from tests.server.listening import Client, connect_client, serve_sockets, until


class SocketBench:
    """A server, its bus, accounts, and a client for each."""

    def __init__(self, url: str, bus: Bus, resources: Resources) -> None:
        self.url, self.bus, self.resources = url, bus, resources
        self.accounts: dict[str, Account] = {}
        self.clients: dict[str, Client] = {}

    def id(self, name: str) -> str:
        return self.accounts[name].user_id

    async def emit(self, *events: Event) -> None:
        """Emit events, then one that all clients receive, and wait until they have it: earlier events have arrived."""
        for event in events:
            self.bus.emit(event)
        self.bus.emit(QueueClearedEvent(queue_id="default"))
        open_ones = [client for client in self.clients.values() if client.socket.connected]
        await until(lambda: all(("queue_cleared", None) in self._ends(client) for client in open_ones))
        for client in open_ones:
            client.events = [
                entry for entry in client.events if entry[0] != "queue_cleared" or entry[1]["user_id"] is not None
            ]

    @staticmethod
    def _ends(client: Client) -> list[tuple[str, Any]]:
        return [(name, data.get("user_id")) for name, data in client.events]

    def events_of(self, name: str) -> list[dict[str, Any]]:
        return [data for _, data in self.clients[name].events]

    async def change(self, name: str, **fields: Any) -> None:
        await service.change(self.resources, self.id(name), AdminUserUpdateRequest(**fields))


@asynccontextmanager
async def open_bench(settings: Settings, database: Database) -> AsyncIterator[SocketBench]:
    settings = settings.model_copy(update={"multiuser": True})
    async with AsyncExitStack() as stack:
        url, bus = await stack.enter_async_context(serve_sockets(settings, database))
        bench = SocketBench(url, bus, Resources(settings, database, bus))
        for name in ("admin", "alice", "bob"):
            bench.accounts[name] = await account(database, name, is_admin=name == "admin")
            auth = {"token": bench.accounts[name].token}
            client = await stack.enter_async_context(connect_client(url, "websocket", auth=auth))
            await client.socket.subscribe()
            bench.clients[name] = client
        yield bench


@pytest.fixture
async def bench(settings: Settings, database: Database) -> AsyncIterator[SocketBench]:
    async with open_bench(settings, database) as bench:
        yield bench


async def test_connections_without_a_valid_token_are_refused(settings: Settings, database: Database) -> None:
    async with open_bench(settings, database) as bench:
        alice = bench.accounts["alice"]
        bad: list[dict[str, Any]] = [
            {},
            {"auth": {}},
            {"auth": {"token": ""}},
            {"auth": {"token": 5}},
            {"auth": {"token": alice.token[:-2]}},
            {"auth": "nonsense"},
            {"headers": {"Authorization": "Bearer nonsense"}},
            {"headers": {"Cookie": f"invokeai_media_token={alice.token}"}},
        ]
        for options in bad:
            with pytest.raises(socketio.exceptions.ConnectionError):
                async with connect_client(bench.url, "websocket", **options):
                    pass
        async with connect_client(bench.url, "websocket", headers=alice.headers) as client:
            assert client.socket.connected
        await bench.change("alice", is_active=False)
        with pytest.raises(socketio.exceptions.ConnectionError):
            async with connect_client(bench.url, "websocket", auth={"token": alice.token}):
                pass


async def test_refused_clients_that_stay_connected_are_disconnected(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "REFUSED_S", 0.2)
    async with (
        serve_sockets(settings.model_copy(update={"multiuser": True}), database) as (url, _bus),
        httpx.AsyncClient(base_url=url) as client,
    ):
        path = "/ws/socket.io/?EIO=4&transport=polling"
        opened = await client.get(path)
        path += f"&sid={json.loads(opened.text[1:])['sid']}"
        await client.post(path, content="40")
        assert (await client.get(path)).text.startswith('44{"message":"Sign in first')
        assert (await client.get(path)).text == "1", "the server closes"
        assert (await client.get(path)).status_code == 400


def item(user_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "queue_id": "default",
        "item_id": 7,
        "batch_id": "b",
        "origin": "o",
        "destination": "d",
        "user_id": user_id,
        **fields,
    }


COUNTS = dict.fromkeys(("pending", "in_progress", "waiting", "completed", "failed", "canceled"), 0) | {"total": 1}


def status_event(user_id: str) -> QueueItemStatusChangedEvent:
    queue = SessionQueueStatus(
        queue_id="default", item_id=7, batch_id="b", session_id="s", user_pending=1, user_in_progress=1, **COUNTS
    )
    return QueueItemStatusChangedEvent(
        **item(user_id),
        status="failed",
        error_type="E",
        error_message="secret",
        error_traceback="secret",
        created_at="c",
        updated_at="u",
        session_id="s",
        batch_status=BatchStatus(queue_id="default", batch_id="b", origin="o", destination="d", **COUNTS),
        queue_status=queue,
    )


async def test_status_is_complete_for_owner_and_admin_and_redacted_for_others(bench: SocketBench) -> None:
    event = status_event(bench.id("alice"))
    await bench.emit(event)
    whole = event.model_dump(mode="json")
    assert bench.events_of("alice") == [whole]
    assert bench.events_of("admin") == [whole]
    (other,) = bench.events_of("bob")
    assert other == event.redact().model_dump(mode="json")
    assert (other["item_id"], other["status"], other["queue_status"]["total"]) == (7, "failed", 1)
    for field in ("batch_id", "session_id", "user_id"):
        assert other[field] == "redacted"
    for field in ("origin", "destination", "error_type", "error_message", "error_traceback"):
        assert other[field] is None
    assert other["batch_status"]["batch_id"] == "redacted"
    assert (other["batch_status"]["origin"], other["queue_status"]["user_pending"]) == (None, None)
    for field in ("item_id", "batch_id", "session_id"):
        assert other["queue_status"][field] is None
    assert "secret" not in str(other)
    assert bench.id("alice") not in str(other)


async def test_batch_and_clear_events_are_redacted_for_others(bench: SocketBench) -> None:
    alice = bench.id("alice")
    batch = BatchEnqueuedEvent(
        queue_id="default", batch_id="b", enqueued=2, requested=2, priority=0, origin="o", user_id=alice
    )
    cleared = QueueClearedEvent(queue_id="default", user_id=alice)
    await bench.emit(batch, cleared)
    for name in ("alice", "admin"):
        assert bench.events_of(name) == [batch.model_dump(mode="json"), cleared.model_dump(mode="json")]
    first, second = bench.events_of("bob")
    assert (first["user_id"], first["batch_id"], first["origin"], first["enqueued"]) == (
        "redacted",
        "redacted",
        None,
        2,
    )
    assert second["user_id"] == "redacted"


@pytest.mark.parametrize(("kind", "word"), [(QueueItemsCanceledEvent, "canceled"), (QueueItemsRetriedEvent, "retried")])
async def test_bulk_events_contain_only_own_items(bench: SocketBench, kind: Any, word: str) -> None:
    alice, admin = bench.id("alice"), bench.id("admin")
    event = kind.of("default", [(1, alice), (2, admin), (3, alice)])
    await bench.emit(event)
    assert bench.events_of("admin") == [event.model_dump(mode="json")]
    (payload,) = bench.events_of("alice")
    assert payload[f"{word}_item_ids"] == [1, 3]
    assert payload["user_ids"] == [alice]
    assert payload[f"{word}_item_ids_by_user"] == {alice: [1, 3]}
    (other,) = bench.events_of("bob")
    assert (other[f"{word}_item_ids"], other["user_ids"], other[f"{word}_item_ids_by_user"]) == ([], [], {})


async def test_previews_go_to_the_owner_and_node_events_to_admins_too(bench: SocketBench) -> None:
    node = {"session_id": "s", "invocation": {"id": "n", "type": "add"}, "invocation_source_id": "n"}
    alice = bench.id("alice")
    started = InvocationStartedEvent(**item(alice), **node)
    progress = InvocationProgressEvent(**item(alice), **node, message="Denoising", percentage=0.5)
    await bench.emit(started, progress)
    assert bench.clients["alice"].names() == ["invocation_started", "invocation_progress"]
    assert bench.clients["admin"].names() == ["invocation_started"]
    assert bench.clients["bob"].names() == []


async def test_unsubscribed_users_receive_only_their_own_events(bench: SocketBench) -> None:
    bob = bench.clients.pop("bob")
    await bob.socket.unsubscribe()
    await bench.emit(status_event(bench.id("alice")), status_event(bench.id("bob")))
    assert [data["user_id"] for _, data in bob.events] == [bench.id("bob")]


async def test_each_window_of_a_user_receives_every_event_once(bench: SocketBench) -> None:
    auth = {"token": bench.accounts["alice"].token}
    async with connect_client(bench.url, "websocket", auth=auth) as second:
        bench.clients["second"] = second
        await second.socket.subscribe()
        await bench.emit(status_event(bench.id("alice")))
        assert second.events == bench.clients["alice"].events
        assert len(second.events) == 1


async def test_demoted_admin_immediately_gets_redacted_events(bench: SocketBench) -> None:
    await account(bench.resources.database, "other", is_admin=True)
    await bench.change("admin", is_admin=False)
    await bench.emit(status_event(bench.id("alice")))
    assert bench.events_of("admin")[0]["user_id"] == "redacted"
    await bench.change("admin", is_admin=True)
    await bench.emit(status_event(bench.id("alice")))
    assert bench.events_of("admin")[1]["user_id"] == bench.id("alice")


@pytest.mark.parametrize("change", [{"is_active": False}, {"password": "Another-1"}])
async def test_disabled_and_revoked_accounts_are_disconnected_immediately(
    bench: SocketBench, change: dict[str, Any]
) -> None:
    await bench.change("alice", **change)
    await until(lambda: not bench.clients["alice"].socket.connected)
    await bench.emit(status_event(bench.id("alice")))
    assert bench.clients["alice"].events == []
    assert bench.clients["bob"].socket.connected


async def test_periodic_check_detects_changes_by_other_processes(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CHECK_S", 0.05)
    async with open_bench(settings, database) as bench:
        elsewhere = Resources(bench.resources.settings, database, Bus())
        await service.change(elsewhere, bench.id("alice"), AdminUserUpdateRequest(is_active=False))
        await service.remove(elsewhere, bench.id("bob"))
        for name in ("alice", "bob"):
            await until(lambda name=name: not bench.clients[name].socket.connected)
        assert bench.clients["admin"].socket.connected


async def test_admin_rights_end_after_three_failed_checks(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    people = SocketSessions(database)
    admin = await account(database, "admin", is_admin=True)
    assert await people.admit("sid", {}, {"token": admin.token})

    async def unreadable(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("disk I/O error"))

    readable = signin.account_status
    monkeypatch.setattr(signin, "account_status", unreadable)
    verdicts = [(await people.check())["sid"] for _ in range(FAILED_CHECKS_LIMIT)]
    assert verdicts[:-1] == [None] * (FAILED_CHECKS_LIMIT - 1)
    assert verdicts[-1] is not None
    assert (verdicts[-1].may_stay, verdicts[-1].is_admin) == (True, False)
    monkeypatch.setattr(signin, "account_status", readable)
    again = (await people.check())["sid"]
    assert again is not None
    assert (again.may_stay, again.is_admin) == (True, True)


async def test_unreadable_database_refuses_connections(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = await account(database, "admin", is_admin=True)

    async def unreadable(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("disk I/O error"))

    monkeypatch.setattr(signin, "verify", unreadable)
    assert await SocketSessions(database).admit("sid", {}, {"token": admin.token}) is None
