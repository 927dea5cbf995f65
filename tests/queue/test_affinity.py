"""Which item goes to a device that holds models: one close behind that needs them, of the same user and priority."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from invokeclone.kit.resources import Resources
from invokeclone.queue import claims, processor, service
from invokeclone.queue.batches import Batch
from invokeclone.queue.statements import AFFINITY_REACH
from invokeclone.tables import session_queue
from invokeclone.users.current import SYSTEM, User

A, B, C = "11111111-aaaa", "22222222-bbbb", "33333333-cccc"
ALICE, BOB = User(user_id="alice"), User(user_id="bob")


class Line:
    """A queue whose items mention models, and devices that take from it."""

    def __init__(self, resources: Resources, make: Any) -> None:
        self.resources, self._make = resources, make

    def set(self, **settings: Any) -> None:
        changed = self.resources.settings.model_copy(update=settings)
        self.resources = replace(self.resources, settings=changed)

    async def add(self, *needs: str, user: User = SYSTEM, prepend: bool = False) -> int:
        graph = self._make.graph(a={"text": " ".join(needs)})
        batch = Batch.model_validate(self._make.batch(graph=graph))
        (item_id,) = (await service.enqueue(self.resources, "default", batch, prepend=prepend, user=user)).item_ids
        return item_id

    async def take(self, *resident: str, device: str = "cuda:0") -> int | None:
        item = await claims.claim(self.resources, device, resident)
        return item.item_id if item else None


@pytest.fixture
def line(resources: Resources, make: Any) -> Line:
    return Line(resources, make)


async def test_devices_prefer_items_that_need_their_loaded_models(line: Line) -> None:
    first, second, third = await line.add(A), await line.add(B), await line.add(B)
    assert await line.take(B, device="cuda:1") == second
    assert await line.take(A) == first
    assert await line.take(A) == third
    assert await line.take(A) is None


async def test_item_with_most_loaded_models_comes_first_then_the_oldest(line: Line) -> None:
    items = [await line.add(*needs) for needs in ((C,), (A,), (A, C), (A, B), (B, A), ())]
    taken = [await line.take(A, B) for _ in items]
    assert taken == [items[index] for index in (3, 4, 1, 2, 0, 5)]


async def test_claims_without_loaded_models_are_first_in_first_out(line: Line) -> None:
    items = [await line.add(*needs) for needs in ((), (A,), (B,))]
    assert [await line.take() for _ in items] == items
    assert await line.take(A) is None


async def test_items_overtake_only_within_the_affinity_reach(line: Line) -> None:
    first = await line.add(B)
    middle = [await line.add() for _ in range(AFFINITY_REACH - 1)]
    near, far = await line.add(A), await line.add(A)
    assert near == first + AFFINITY_REACH
    assert await line.take(A) == near
    assert await line.take(A) == first
    assert await line.take(A) == far
    assert await line.take(A) == middle[0]


async def test_priority_outranks_model_affinity(line: Line) -> None:
    old, soon = await line.add(A), await line.add(B, prepend=True)
    assert [await line.take(A), await line.take(A)] == [soon, old]


async def test_turns_outrank_model_affinity(line: Line) -> None:
    line.set(multiuser=True)
    alice = [await line.add(*needs, user=ALICE) for needs in ((B,), (A,))]
    bob = [await line.add(*needs, user=BOB) for needs in ((B,), (C,), (A,))]
    assert await line.take(A) == alice[1]
    assert await line.take(A) == bob[2]


async def test_items_do_not_overtake_items_of_other_users(line: Line) -> None:
    alice, bob = await line.add(B, user=ALICE), await line.add(A, user=BOB)
    assert [await line.take(A), await line.take(A)] == [alice, bob]


async def test_fifo_mode_ignores_model_affinity(line: Line) -> None:
    line.set(session_queue_mode="FIFO")
    items = [await line.add(B), await line.add(A)]
    assert [await line.take(A), await line.take(A)] == items


async def test_paused_workers_claim_no_items(line: Line) -> None:
    item = await line.add(A)
    await processor.pause(line.resources)
    assert await line.take(A) is None
    await processor.resume(line.resources)
    assert await line.take(A) == item


async def test_item_bound_to_another_device_is_left_to_it(line: Line) -> None:
    first, second = await line.add(B), await line.add(A)
    async with line.resources.database.write() as connection:
        bound = update(session_queue).where(session_queue.c.item_id == second).values(device="cuda:1")
        await connection.execute(bound)
    assert await line.take(A) == first
    assert await line.take(A) is None
    assert await line.take(A, device="cuda:1") == second


async def test_many_users_take_turns_in_a_long_queue(line: Line) -> None:
    """Users are found one after the other in the index, whatever their names, and none twice."""
    line.set(multiuser=True)
    users = [User(user_id=name) for name in ("b", "", "a", "ä", "B")]
    items_by_user = {user.user_id: [await line.add(user=user) for _ in range(3)] for user in users}
    taken = [await line.take() for _ in users]
    assert set(taken) == {items[0] for items in items_by_user.values()}
    assert taken == sorted(
        item_id for item_id in taken if item_id is not None
    )  # nobody was served before: the oldest item decides
