"""What the database says of the queues, for `/metrics`."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, update

from invokeclone.kit.resources import Resources
from invokeclone.queue import claims, metrics, service
from invokeclone.queue.batches import Batch
from invokeclone.queue.metrics import ITEMS, MAX_QUEUES, OLDEST
from invokeclone.tables import queue_counts, session_queue
from invokeclone.users.current import User


async def test_items_are_counted_over_users_and_the_age_is_that_of_the_oldest_pending_one(
    resources: Resources, make: Any
) -> None:
    for user, prepend in (("alice", False), ("bob", True)):
        batch = Batch.model_validate(make.batch(runs=2))
        await service.enqueue(resources, "q", batch, prepend=prepend, user=User(user_id=user))
    created = (datetime.now(UTC) - timedelta(seconds=100)).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    async with resources.database.write() as connection:
        await connection.execute(update(session_queue).where(session_queue.c.item_id == 1).values(created_at=created))
    numbers = await metrics.measure(resources.database)
    assert numbers.series(ITEMS)["q", "pending"] == [4]
    assert numbers.series(ITEMS)["q", "completed"] == [0]
    assert numbers.series(OLDEST)[("q",)][0] >= 100
    claimed = await claims.claim(resources, "cpu")
    assert claimed
    numbers = await metrics.measure(resources.database)
    assert (numbers.series(ITEMS)["q", "pending"], numbers.series(ITEMS)["q", "in_progress"]) == ([3], [1])


async def test_number_of_reported_queues_is_limited(resources: Resources) -> None:
    async with resources.database.write() as connection:
        rows = [
            {"queue_id": f"a{index:03}", "scope": "queue", "name": "", "user_id": "u", "status": "pending", "number": 1}
            for index in range(MAX_QUEUES * 2)
        ]
        await connection.execute(insert(queue_counts), rows)
    queues = [queue for (queue,) in (await metrics.measure(resources.database)).series(OLDEST)]
    assert queues == ["default", *(f"a{index:03}" for index in range(MAX_QUEUES))]


@pytest.mark.parametrize(("created", "age"), [("2999-01-01 00:00:00.000", 0), ("no time", 0)])
def test_age_is_valid_despite_an_invalid_clock(created: str, age: float) -> None:
    assert metrics._age(created) == age
