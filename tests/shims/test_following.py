"""Batches that are followed: their events and rows reach who follows them, and one client's trouble is not the others'."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

import orjson
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.invocations import registry
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Bus, Event
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database
from invokeclone.kit.sql.sqlite_database import SqliteDatabase
from invokeclone.queue import claims, service, store
from invokeclone.queue.batches import Batch
from invokeclone.queue.events import InvocationEvent, InvocationProgressEvent, InvocationStartedEvent
from invokeclone.queue.rows import Item
from invokeclone.shims.batch_follower import BatchFollower, BatchKey
from invokeclone.shims.comfyui import store as comfyui_store
from invokeclone.shims.comfyui.sockets import Clients, Socket
from invokeclone.users.current import SYSTEM, User


class Recorder:
    """A watcher, and an audience, that keeps what it sees."""

    node_events: ClassVar = (InvocationEvent,)

    def __init__(self, error: Exception | None = None) -> None:
        self.events: list[str] = []
        self.looks: list[list[str]] = []
        self.error = error
        self.rounds = 0

    def handle_event(self, kind: type[Event], _payload: dict[str, Any]) -> None:
        self.events.append(kind.name)

    async def refresh(self, _database: Database, items: Sequence[Item] | None = None) -> None:
        if items is None:
            self.rounds += 1
        else:
            self.looks.append([item.status for item in items])
        if self.error is not None:
            raise self.error


@pytest.fixture
async def resources(settings: Settings) -> AsyncIterator[Resources]:
    registry.discover()
    database = SqliteDatabase(settings.database_path)
    await database.migrate()
    yield Resources(settings, database, Bus())
    await database.close()


@pytest.fixture
async def follower(resources: Resources) -> AsyncIterator[BatchFollower]:
    assert isinstance(resources.events, Bus)
    batch_follower = BatchFollower(resources, resources.events)
    yield batch_follower
    await batch_follower.stop()


def own(batch_id: str) -> BatchKey:
    return BatchKey("system", batch_id)


async def enqueue(resources: Resources, batch_id: str, count: int = 1, user: User = SYSTEM) -> None:
    graph = {"id": "g", "nodes": {"a": {"id": "a", "type": "add"}}, "edges": []}
    batch = Batch.model_validate({"batch_id": batch_id, "graph": graph, "runs": count})
    await service.enqueue(resources, "default", batch, user=user)


async def finish(resources: Resources) -> None:
    item = await claims.claim(resources, "cpu")
    assert item
    await claims.finish(resources, item.item_id, "completed")


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def test_one_read_serves_all_followers(follower: BatchFollower, resources: Resources, monkeypatch: Any) -> None:
    reads: list[list[str]] = []

    async def read(connection: AsyncConnection, batch_ids: Any) -> list[Item]:
        reads.append(list(batch_ids))
        return await original(connection, batch_ids)

    original = store.list_of_batches
    monkeypatch.setattr(store, "list_of_batches", read)
    first, second = Recorder(), Recorder()
    for name, watcher in (("a", first), ("b", second)):
        follower.follow(own(name), watcher)
        await enqueue(resources, name, 2)
    assert reads == []
    await finish(resources)
    await until(lambda: second.looks)
    assert (first.looks, second.looks) == ([["completed", "pending"]], [["pending", "pending"]])
    assert reads == [["a", "b"]]
    assert set(first.events) == {"queue_item_status_changed"}
    assert second.events == []


async def test_nothing_is_read_without_followers(follower: BatchFollower, resources: Resources) -> None:
    watcher = Recorder()
    follower.follow(own("a"), watcher)
    await enqueue(resources, "a")
    follower.unfollow(own("a"))
    await finish(resources)
    await asyncio.sleep(0.02)
    assert (watcher.events, watcher.looks) == ([], [])
    assert "follow_batches" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_bus_is_subscribed_only_while_there_are_followers(resources: Resources) -> None:
    bus = Bus()
    follower, watcher, audience = BatchFollower(resources, bus), Recorder(), Recorder()
    assert len(bus._listeners) == 0
    follower.follow(own("a"), watcher)
    follower.add_queue_observer(audience)
    follower.add_queue_observer(audience)
    assert len(bus._listeners) == 1
    follower.unfollow(own("a"))
    assert len(bus._listeners) == 1
    follower.remove_queue_observer(audience)
    follower.remove_queue_observer(audience)
    assert len(bus._listeners) == 0
    follower.follow(own("a"), watcher)
    await follower.stop()
    assert len(bus._listeners) == 0


async def test_watchers_receive_only_their_node_event_types(follower: BatchFollower, resources: Resources) -> None:
    class OfProgress(Recorder):
        node_events: ClassVar = (InvocationProgressEvent,)

    every, progress = Recorder(), OfProgress()
    node = {
        "queue_id": "default", "item_id": 1, "session_id": "s", "invocation": {}, "invocation_source_id": "a",
    }  # fmt: skip
    events = [
        (InvocationStartedEvent, node),
        (InvocationProgressEvent, {**node, "message": "step", "percentage": 0.5, "image": None, "device": None}),
    ]

    def emit(batch_id: str) -> None:
        assert isinstance(resources.events, Bus)
        for kind, payload in events:
            resources.events.emit(kind.model_validate({**payload, "batch_id": batch_id}))

    follower.follow(own("b"), progress)
    emit("b")
    follower.follow(own("a"), every)
    emit("a")
    emit("b")
    follower.unfollow(own("a"))
    emit("a")
    assert every.events == ["invocation_started", "invocation_progress"]
    assert progress.events == ["invocation_progress", "invocation_progress"]


async def test_items_of_another_user_with_the_same_batch_id_are_not_shown(
    follower: BatchFollower, resources: Resources
) -> None:
    await enqueue(resources, "a")
    await enqueue(resources, "a", 2, User(user_id="other"))
    owner, stranger = Recorder(), Recorder()
    follower.follow(own("a"), owner)
    follower.follow(BatchKey("other", "a"), stranger)
    await finish(resources)
    await until(lambda: owner.looks and stranger.looks)
    assert (owner.looks[0], stranger.looks[0]) == (["completed"], ["pending", "pending"])
    assert (set(owner.events), stranger.events) == ({"queue_item_status_changed"}, [])
    follower.unfollow(BatchKey("other", "a"))
    assert follower.follows(own("a"))


async def test_failing_watcher_does_not_affect_others(
    follower: BatchFollower, resources: Resources, logged: Any
) -> None:
    broken, audience, watcher = Recorder(RuntimeError("gone")), Recorder(), Recorder()
    follower.add_queue_observer(audience)
    follower.follow(own("a"), broken)
    follower.follow(own("b"), watcher)
    await enqueue(resources, "a")
    await finish(resources)
    await until(lambda: watcher.looks and audience.rounds)
    assert broken.looks[0] in (["pending"], ["in_progress"], ["completed"])
    assert watcher.looks[0] == []
    await enqueue(resources, "b")
    await until(lambda: ["pending"] in watcher.looks)
    assert any("an observer of the queue failed" in record.getMessage() for record in logged)


async def test_a_comfyui_client_that_connects_again_gets_every_change_of_the_queue(
    follower: BatchFollower, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    remaining = 1

    async def count(_connection: AsyncConnection, _user_id: str) -> int:
        return remaining

    monkeypatch.setattr(comfyui_store, "count_active", count)
    clients, first, second = Clients(resources, follower, Bus()), Socket(), Socket()
    await clients._greet(first, SYSTEM, "c")
    clients._disconnect(first, SYSTEM, "c")
    remaining = 0
    await clients._greet(second, SYSTEM, "c")
    remaining = 1
    for _ in range(2):
        await clients.refresh(resources.database)
    numbers = [
        orjson.loads(frame or "")["data"]["status"]["exec_info"]["queue_remaining"]
        for frame in (second.frames.get_nowait() for _ in range(second.frames.qsize()))
    ]
    assert numbers == [0, 1]


async def test_a_read_that_ends_after_the_last_client_left_leaves_no_position(
    follower: BatchFollower, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients, socket = Clients(resources, follower, Bus()), Socket()
    await clients._greet(socket, SYSTEM, "c")
    clients._newest_id = 0  # as on a shared database
    await enqueue(resources, "a")
    (item,) = await store.list_of_batches(resources.database, ["a"])

    async def leave(_connection: AsyncConnection, _item_id: int) -> list[Item]:
        clients._disconnect(socket, SYSTEM, "c")
        return [item]

    monkeypatch.setattr(comfyui_store, "list_newer", leave)
    await clients.refresh(resources.database)
    assert clients._newest_id is None
