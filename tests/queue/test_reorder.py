"""Moving pending items: any move by priorities alone, users among their own, the events and the answers to mistakes."""

import random
from dataclasses import replace
from typing import Any

import asyncpg
import httpx
import pytest

from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import open_database
from invokeclone.queue import claims, service, store
from invokeclone.queue.batches import Batch
from invokeclone.queue.reorder import PendingItem, QueuePosition, TargetMoved, TargetNotPending, plan
from invokeclone.users.current import SYSTEM, User
from tests.postgres import PostgresServer

ALICE, BOB = User(user_id="alice"), User(user_id="bob")
ADMIN = User(user_id="root", is_admin=True)


def in_order(items: list[PendingItem]) -> list[PendingItem]:
    return sorted(items, key=lambda item: (-item.priority, item.item_id))


def after(order: list[PendingItem], priorities: dict[int, int]) -> list[int]:
    changed = [item._replace(priority=priorities.get(item.item_id, item.priority)) for item in order]
    return [item.item_id for item in in_order(changed)]


def expected(order: list[PendingItem], moved: list[int], position: QueuePosition, owner: str | None) -> list[int]:
    """Return the order after a move, from the rule: among the places of what may be moved, the others stay."""
    own = [item.item_id for item in order if owner in (None, item.user_id)]
    rest = [item_id for item_id in own if item_id not in moved]
    at = {"front": 0, "end": len(rest)}.get(position.side)
    if at is None:
        assert position.target is not None
        at = rest.index(position.target) + (position.side == "after")
    arranged = iter([*rest[:at], *moved, *rest[at:]])
    return [next(arranged) if item.item_id in own else item.item_id for item in order]


def test_every_move_gives_the_order_that_the_rule_says() -> None:
    chance = random.Random(7)
    for _ in range(400):
        size = chance.randint(1, 9)
        users = [chance.choice(["alice", "bob"]) for _ in range(size)]
        order = in_order([PendingItem(n, chance.choice([0, 0, 1, 3, -2]), user) for n, user in enumerate(users, 1)])
        owner = chance.choice([None, users[0]])
        own = [item.item_id for item in order if owner in (None, item.user_id)]
        moved = chance.sample(own, chance.randint(1, len(own)))
        rest = [item_id for item_id in own if item_id not in moved]
        sides: list[Any] = ["front", "end"] + ["before", "after"] * bool(rest)
        side = chance.choice(sides)
        position = QueuePosition(side, chance.choice(rest)) if side in ("before", "after") else QueuePosition(side)
        priorities = plan(order, moved, position, owner)
        assert after(order, priorities) == expected(order, moved, position, owner), (order, moved, position, owner)


def test_moves_to_the_front_change_no_other_item() -> None:
    order = in_order([PendingItem(n, 0, "alice") for n in range(1, 6)])
    assert plan(order, [4], QueuePosition("front"), None) == {4: 1}
    assert plan(order, [1], QueuePosition("front"), None) == {}
    assert plan(order, [5], QueuePosition("end"), None) == {}


@pytest.mark.parametrize(("target", "error"), [(9, TargetNotPending), (1, TargetMoved)])
def test_targets_that_items_cannot_be_moved_next_to(target: int, error: type[Exception]) -> None:
    order = in_order([PendingItem(n, 0, "alice") for n in range(1, 4)])
    with pytest.raises(error):
        plan(order, [1, 2], QueuePosition("before", target), None)


@pytest.fixture
def add(resources: Resources, make: Any) -> Any:
    async def act(user: User = SYSTEM, runs: int = 1) -> list[int]:
        batch = Batch.model_validate(make.batch(runs=runs))
        return (await service.enqueue(resources, "default", batch, user=user)).item_ids[::-1]

    return act


async def test_users_move_items_among_their_own(resources: Resources, add: Any) -> None:
    a1, b1, a2, b2, a3 = [(await add(user))[0] for user in (ALICE, BOB, ALICE, BOB, ALICE)]
    assert await service.move(resources, "default", [a3], QueuePosition("front"), user=ALICE) == [a3, b1, a1, b2, a2]
    assert await service.move(resources, "default", [b2], QueuePosition("before", a3), user=ADMIN) == [
        b2,
        a3,
        b1,
        a1,
        a2,
    ]
    for item_ids, position in (([b1], QueuePosition("end")), ([a1], QueuePosition("after", b1))):
        with pytest.raises(service.NotYourQueueItem):
            await service.move(resources, "default", item_ids, position, user=ALICE)
    await service.prepend(resources, "default", a2, user=ALICE)
    assert await store.list_pending(resources.database, "default") == [b2, a2, b1, a3, a1]
    taken = [await claims.claim(resources, "cpu") for _ in range(5)]
    assert [item.item_id for item in taken if item] == [b2, a2, b1, a3, a1]


async def test_users_prepend_batches_to_their_own_items_in_fifo_order(resources: Resources, make: Any) -> None:
    """With fair turns, priorities order a user's items only, so that nobody is overtaken."""
    for mode, ends in (
        ("FIFO", ["b1", "a2", "b2", "a3", "a1", "a4"]),
        ("round_robin", ["a2", "a3", "b1", "a1", "b2", "a4"]),
    ):
        resources = replace(resources, settings=resources.settings.model_copy(update={"session_queue_mode": mode}))
        names: dict[Any, Any] = {}

        async def add(user: User, *labels: str, prepend: bool = False) -> None:
            batch = Batch.model_validate(make.batch(runs=len(labels)))
            result = await service.enqueue(resources, mode, batch, prepend=prepend, user=user)  # noqa: B023
            names.update(zip(result.item_ids[::-1], labels, strict=True))  # noqa: B023
            assert (result.priority > 0) == prepend

        await add(BOB, "b1")
        await add(ALICE, "a1")
        await add(BOB, "b2")
        await add(ALICE, "a4")
        await add(ALICE, "a2", "a3", prepend=True)
        assert [names[item_id] for item_id in await store.list_pending(resources.database, mode)] == ends
        await add(ADMIN, "x", prepend=True)
        assert names[(await store.list_pending(resources.database, mode))[0]] == "x"


async def test_clients_are_notified_of_a_new_order(resources: Resources, add: Any, events: Any) -> None:
    first, second = await add(runs=2)
    events.sent.clear()
    await service.move(resources, "default", [second], QueuePosition("front"))
    (event,) = events.sent
    assert (event.name, event.item_id, event.status) == ("queue_item_status_changed", second, "pending")
    assert event.queue_status.pending == 2
    await service.move(resources, "default", [second], QueuePosition("before", first))
    await service.prepend(resources, "default", second)
    assert len(events.sent) == 1, "nothing moved"
    await service.prepend(resources, "default", first)
    assert [sent.item_id for sent in events.sent] == [second, first]


async def test_items_are_moved_by_route(client: httpx.AsyncClient, resources: Resources, add: Any) -> None:
    ids = await add(runs=4)
    body = {"item_ids": [ids[3], ids[1]], "after": ids[0]}
    answer = await client.put("move_items_by_id", json=body)
    assert answer.json() == {"item_ids": [ids[0], ids[3], ids[1], ids[2]], "total_count": 4}
    running = await claims.claim(resources, "cpu")
    assert running
    assert running.item_id == ids[0]
    answer = await client.put("move_items_by_id", json={"item_ids": [ids[0], ids[2]], "to": "front"})
    assert answer.json()["item_ids"] == [ids[2], ids[3], ids[1]]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"item_ids": [1]}, 422),
        ({"item_ids": [1], "to": "front", "before": 2}, 422),
        ({"item_ids": [], "to": "front"}, 422),
        ({"item_ids": [1], "to": "middle"}, 422),
        ({"item_ids": [1], "before": 1}, 422),
        ({"item_ids": [99], "to": "end"}, 404),
        ({"item_ids": [-1], "to": "end"}, 404),
        ({"item_ids": [10**30], "to": "end"}, 422),
        ({"item_ids": [1], "after": 10**30}, 422),
        ({"item_ids": [1], "after": 0}, 404),
        ({"item_ids": [1], "after": 3}, 409),
    ],
)
async def test_mistakes_are_answered(
    client: httpx.AsyncClient, resources: Resources, add: Any, body: dict[str, Any], status: int
) -> None:
    assert await add(runs=3) == [1, 2, 3]
    await service.cancel(resources, "default", 3)
    answer = await client.put("move_items_by_id", json=body)
    assert answer.status_code == status, answer.text
    assert await store.list_pending(resources.database, "default") == [1, 2]


async def test_many_items_are_moved_by_one_statement(
    postgres: PostgresServer, settings: Any, events: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement is a round trip while no other transaction begins."""
    statements: list[str] = []
    fetch = asyncpg.Connection.fetch

    async def run(connection: Any, sql: str, *arguments: Any, **options: Any) -> Any:
        statements.append(sql)
        return await fetch(connection, sql, *arguments, **options)

    monkeypatch.setattr(asyncpg.Connection, "fetch", run)
    settings = settings.model_copy(update={"database_url": postgres.clean_database()})
    resources = Resources(settings, open_database(settings), events)
    batch = Batch.model_validate(make.batch(runs=40))
    ids = (await service.enqueue(resources, "default", batch)).item_ids
    assert await service.move(resources, "default", ids, QueuePosition("front")) == ids
    await resources.database.close()
    assert len([sql for sql in statements if "SET priority" in sql]) == 1
