"""Several workers at once: each claim is the one that the rules name at its time, and each batch ends once.

The claims are replayed in the order in which they were committed, against the rules written down a second time: turns of
users, priorities of their items, and affinity to loaded models.
"""

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import select

from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import open_database
from invokeclone.queue import claims, service, store
from invokeclone.queue.batches import Batch
from invokeclone.queue.events import QueueItemStatusChangedEvent
from invokeclone.queue.rows import ClaimedItem
from invokeclone.queue.statements import AFFINITY_REACH
from invokeclone.tables import webhook_deliveries
from invokeclone.users.current import User
from invokeclone.webhooks import store as webhook_store
from invokeclone.webhooks.schemas import WebhookRequest

KEYS = ("11111111-aaaa", "22222222-bbbb", "33333333-cccc")
DEVICES = {"cuda:0": (), "cuda:1": (KEYS[0],), "cuda:2": (KEYS[1], KEYS[2]), "cuda:3": (KEYS[2],)}


@dataclass
class Waiting:
    user_id: str
    priority: int
    keys: tuple[str, ...]


class Rules:
    """The queue as the rules have it."""

    def __init__(self, *, fair: bool) -> None:
        self.fair = fair
        self.waiting: dict[int, Waiting] = {}
        self.served: dict[str, int] = {}

    def best(self, user_id: str | None) -> int:
        """Return the first item of a user, or of all."""
        ids = (item_id for item_id, item in self.waiting.items() if user_id in (None, item.user_id))
        return min(ids, key=lambda item_id: (-self.waiting[item_id].priority, item_id))

    def next_item(self, resident: tuple[str, ...]) -> int:
        candidates = {item.user_id for item in self.waiting.values()} if self.fair else {None}
        first = min((self.served.get(str(user), -1), self.best(user)) for user in candidates)[1]
        chosen = self.waiting[first]
        peers = [
            item_id
            for item_id, item in self.waiting.items()
            if (item.user_id, item.priority) == (chosen.user_id, chosen.priority)
            and first <= item_id <= first + AFFINITY_REACH
        ]
        return min(peers, key=lambda item_id: (-len(set(resident) & set(self.waiting[item_id].keys)), item_id))


@pytest.fixture
def steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each change of status a time of its own: turns go by milliseconds."""
    numbers = itertools.count(1)
    monkeypatch.setattr(store, "now", lambda: f"2030-01-01 00:00:{next(numbers):09.3f}")


@pytest.fixture
async def servers(resources: Resources) -> AsyncIterator[list[Resources]]:
    """Return resources with a database of their own for each device, as worker processes have."""
    async with AsyncExitStack() as stack:
        databases = [open_database(resources.settings) for _ in DEVICES]
        for database in databases:
            stack.push_async_callback(database.close)
        yield [replace(resources, database=database) for database in databases]


async def fill(resources: Resources, make: Any, rules: Rules) -> None:
    """Enqueue items of three users, some of them first, that need different models."""
    chance = random.Random(3)
    for user_id, count in (("alice", 40), ("bob", 14), ("carol", 4)):
        for _ in range(count):
            keys = tuple(chance.sample(KEYS, chance.randint(0, 2)))
            graph = make.graph(a={"text": " ".join(keys)})
            batch = Batch.model_validate(make.batch(graph=graph))
            result = await service.enqueue(
                resources, "default", batch, prepend=chance.random() < 0.2, user=User(user_id=user_id)
            )
            rules.waiting[result.item_ids[0]] = Waiting(user_id, 0, keys)
    for item in await store.list_pending_items(resources.database, "default"):
        rules.waiting[item.item_id].priority = item.priority


@pytest.mark.sqlite("PostgreSQL's claims overlap, and pass over items that others have locked")
@pytest.mark.parametrize(("multiuser", "mode"), [(True, "round_robin"), (False, "round_robin"), (True, "FIFO")])
@pytest.mark.usefixtures("steady_clock")
async def test_each_claim_follows_the_rules(servers: list[Resources], make: Any, multiuser: bool, mode: str) -> None:
    settings = servers[0].settings.model_copy(update={"multiuser": multiuser, "session_queue_mode": mode})
    servers = [replace(server, settings=settings) for server in servers]
    rules = Rules(fair=multiuser and mode == "round_robin")
    await fill(servers[0], make, rules)

    async def work(server: Resources, device: str) -> list[ClaimedItem]:
        claimed = []
        while item := await claims.claim(server, device, DEVICES[device]):
            claimed.append(item)
            await asyncio.sleep(0.001)  # the others get the database's lock
        return claimed

    parts = await asyncio.gather(*(work(server, device) for server, device in zip(servers, DEVICES, strict=True)))
    claimed_items = sorted(itertools.chain(*parts), key=lambda item: item.started_at or "")
    assert sum(bool(part) for part in parts) > 1, "one worker claimed everything"
    for number, item in enumerate(claimed_items):
        resident = DEVICES[item.device or ""] if mode == "round_robin" else ()
        assert item.item_id == rules.next_item(resident), (number, item.device)
        rules.served[item.user_id] = number
        del rules.waiting[item.item_id]
    assert rules.waiting == {}


async def test_each_batch_ends_once_whoever_ends_its_items(servers: list[Resources], make: Any, events: Any) -> None:
    """The last of its items to end reports a batch without active items and writes its webhook event, and no other one."""
    request = WebhookRequest(url="https://example.com", events=["batch_done"])
    await servers[0].database.transact(
        lambda connection: webhook_store.add(connection, "system", request, "whsec_AAAA")
    )
    batch_ids = [f"b{number}" for number in range(6)]
    for batch_id in batch_ids:
        batch = Batch.model_validate(make.batch(batch_id=batch_id, runs=8))
        await service.enqueue(servers[0], "default", batch)

    async def work(server: Resources, device: str) -> None:
        while item := await claims.claim(server, device):
            status = "failed" if item.item_id % 5 == 0 else "completed"
            error = ("E", "m", "t") if status == "failed" else None
            assert await claims.finish(server, item.item_id, status, error=error)  # type: ignore[arg-type]

    await asyncio.gather(*(work(server, device) for server, device in zip(servers, DEVICES, strict=True)))
    async with servers[0].database.read() as connection:
        written = [json.loads(body) for (body,) in await connection.execute(select(webhook_deliveries.c.body))]
    assert sorted(body["data"]["batch_id"] for body in written) == batch_ids
    assert {body["data"]["total"] for body in written} == {8}
    changes = [event for event in events.sent if isinstance(event, QueueItemStatusChangedEvent)]
    ended = [event.batch_status for event in changes if not event.batch_status.pending + event.batch_status.in_progress]
    assert sorted(status.batch_id for status in ended) == batch_ids
    assert {status.completed + status.failed for status in ended} == {8}
    assert len({(event.item_id, event.status_sequence) for event in changes}) == len(changes) == 2 * 48
