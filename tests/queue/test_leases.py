"""Leases and fences of claims: late results are refused, items of dead workers return to the queue."""

import functools
from typing import Any

import pytest
from sqlalchemy import select, update

from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.functions import database_now
from invokeclone.kit.sql.prepared_statements import PreparedStatement
from invokeclone.queue import claims, leases, service, store
from invokeclone.queue.batches import Batch
from invokeclone.queue.bulk import ItemFilter
from invokeclone.queue.rows import ClaimedItem
from invokeclone.tables import session_queue

EVERYTHING = ItemFilter(queue_id="default")
DEFAULT_LEASE_S = store.LEASE_S


@pytest.fixture
def expired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give claims a lease that is over at once."""
    monkeypatch.setattr(store, "LEASE_S", -1)


async def add(resources: Resources, make: Any, runs: int = 1) -> list[int]:
    batch = Batch.model_validate(make.batch(runs=runs))
    return sorted((await service.enqueue(resources, "default", batch)).item_ids)


async def claim(resources: Resources, worker_id: str = "one", device: str = "cpu") -> ClaimedItem:
    item = await claims.claim(resources, device, worker_id=worker_id)
    assert item
    return item


async def row(resources: Resources, item_id: int, *names: str) -> tuple[Any, ...]:
    sql = f"SELECT {', '.join(names)} FROM session_queue WHERE item_id = {item_id}"
    return (await resources.database.fetch(sql, ()))[0]


async def test_each_claim_has_a_higher_fence_and_a_lease_of_the_databases_clock(
    resources: Resources, make: Any
) -> None:
    await add(resources, make)
    item = await claim(resources)
    assert item.fence == 1
    (lease,) = await row(resources, item.item_id, "lease_expires_at")
    ((now,),) = await PreparedStatement(select(database_now())).rows(resources.database)
    assert lease > now
    assert len(lease) == len(now) == len(item.updated_at)
    assert await row(resources, item.item_id, "worker_id", "device", "interruptions") == ("one", "cpu", 0)


async def test_a_late_result_changes_nothing(resources: Resources, make: Any, expired: None) -> None:
    await add(resources, make)
    late = await claim(resources)
    assert await leases.rescue(resources) == [late.item_id]
    assert not await claims.is_running(resources, late.item_id, late.fence)
    current = await claim(resources, "two")
    assert current.item_id == late.item_id
    assert current.fence > late.fence
    rest = ',"results":{"late":1}}'
    assert await claims.finish(resources, late.item_id, "completed", session_json=rest, fence=late.fence) is None
    assert not await claims.is_running(resources, late.item_id, late.fence)
    assert await claims.is_running(resources, current.item_id, current.fence)
    assert '"late"' not in str(await store.get_session(resources.database, late.item_id))
    finished = await claims.finish(resources, current.item_id, "completed", session_json=rest, fence=current.fence)
    assert finished
    assert finished.status == "completed"
    assert await row(resources, current.item_id, "lease_expires_at") == (None,)


async def test_an_interrupted_item_is_pending_without_an_error(
    resources: Resources, make: Any, events: Any, expired: None
) -> None:
    (item_id,) = await add(resources, make)
    await claim(resources)
    events.sent.clear()
    assert await leases.rescue(resources) == [item_id]
    assert await row(resources, item_id, "status", "error_type", "interruptions", "worker_id", "device") == (
        "pending", None, 1, None, None,
    )  # fmt: skip
    assert [(event.name, event.status) for event in events.sent] == [("queue_item_status_changed", "pending")]
    assert events.sent[0].queue_status.pending == 1
    assert await leases.rescue(resources) == []


async def test_an_item_fails_after_three_interruptions(
    resources: Resources, make: Any, events: Any, expired: None
) -> None:
    (item_id,) = await add(resources, make)
    for _ in range(leases.MAX_INTERRUPTIONS):
        await claim(resources)
        assert await leases.rescue(resources) == [item_id]
    status, kind, message = await row(resources, item_id, "status", "error_type", "error_message")
    assert (status, kind) == ("failed", "WorkerDied")
    assert "interrupted 3 times" in message
    assert "did not renew" in message
    assert [event.status for event in events.sent[-2:]] == ["in_progress", "failed"]
    assert await row(resources, item_id, "completed_at IS NOT NULL") == (1,)


async def test_leases_of_live_workers_are_renewed(
    resources: Resources, make: Any, monkeypatch: pytest.MonkeyPatch, expired: None
) -> None:
    live, dead = await add(resources, make, runs=2)
    await claim(resources, "live")
    await claim(resources, "dead")
    monkeypatch.setattr(store, "LEASE_S", DEFAULT_LEASE_S)
    await leases.renew(resources, ["live"])
    assert await leases.rescue(resources) == [dead]
    assert await row(resources, live, "status") == ("in_progress",)


async def test_only_the_items_of_the_dead_worker_are_interrupted(resources: Resources, make: Any) -> None:
    first, second = await add(resources, make, runs=2)
    await claim(resources, "one")
    held = await claim(resources, "two")
    assert await leases.interrupt(resources, "one", "it was killed") == [first]
    assert (await leases.get_held_item(resources.database, "two", second, held.fence)).item_id == second
    with pytest.raises(leases.ItemNotHeld):
        await leases.get_held_item(resources.database, "two", second, held.fence + 1)
    with pytest.raises(leases.ItemNotHeld):
        await leases.get_held_item(resources.database, "one", second, held.fence)
    again = await leases.get_held_claim(resources, "two")
    assert again
    assert (again.fence, again.session) == (held.fence, held.session)
    assert await leases.get_held_claim(resources, "one") is None


async def test_ends_of_an_item_end_its_lease(resources: Resources, make: Any, expired: None) -> None:
    first, second = await add(resources, make, runs=2)
    await claim(resources)
    await service.cancel(resources, "default", first)
    await claim(resources)
    await service.cancel_many(resources, EVERYTHING)
    assert await leases.rescue(resources) == []
    assert await row(resources, second, "status", "lease_expires_at") == ("canceled", None)


async def test_a_restart_cancels_what_ran_here_and_keeps_what_joined_workers_run(
    resources: Resources, make: Any
) -> None:
    own, joined = await add(resources, make, runs=2)
    await claim(resources, "server:1:cpu:1")
    await claim(resources, "joined:box:cpu:1")
    await claims.recover(resources)
    assert await row(resources, own, "status") == ("canceled",)
    assert await row(resources, joined, "status") == ("in_progress",)


@pytest.mark.parametrize("status", ["waiting", "pending"])
async def test_any_worker_may_continue_what_a_dead_worker_has_data_of(
    status: Any, resources: Resources, make: Any, events: Any, expired: None
) -> None:
    (item_id,) = await add(resources, make)
    item = await claim(resources, "dead", "cuda:7")
    await resources.database.transact(
        lambda connection: store.set_status(connection, item_id, status, fence=item.fence)
    )
    if status == "pending":
        assert await claims.claim(resources, "cpu") is None
    events.sent.clear()
    assert await leases.rescue(resources) == []
    assert await row(resources, item_id, "status", "device", "lease_expires_at", "interruptions") == (
        status, None, None, 0,
    )  # fmt: skip
    assert events.sent == []
    assert (await claims.claim(resources, "cpu") is not None) == (status == "pending")


async def test_a_waiting_item_keeps_its_worker_while_it_lives(resources: Resources, make: Any) -> None:
    (item_id,) = await add(resources, make)
    item = await claim(resources, "one", "cuda:7")
    for status in ("waiting", "pending"):
        await resources.database.transact(
            functools.partial(store.set_status, item_id=item_id, status=status, fence=item.fence)
        )
    await leases.renew(resources, ["one"])
    await leases.rescue(resources)
    assert await claims.claim(resources, "cpu") is None
    again = await claim(resources, "one", "cuda:7")
    assert again.fence == item.fence + 1


async def test_a_server_on_a_shared_database_cancels_nothing_at_its_start(resources: Resources, make: Any) -> None:
    (item_id,) = await add(resources, make)
    await claim(resources, "server:other:cpu:1")
    await claims.recover(resources, shared=True)
    assert await row(resources, item_id, "status") == ("in_progress",)


async def test_a_resumed_item_is_continued_by_its_worker_or_after_its_end_by_any(
    resources: Resources, make: Any
) -> None:
    """Two servers may have a device of the same name; only one worker has the cached data of the item."""
    (item_id,) = await add(resources, make)
    held = await claim(resources, "one")
    async with resources.database.write() as connection:
        await connection.execute(update(session_queue).values(status="pending"))
    for fair in (True, False):
        mode = "round_robin" if fair else "FIFO"
        resources.settings = resources.settings.model_copy(update={"session_queue_mode": mode})
        assert await claims.claim(resources, "cpu", worker_id="two") is None
        assert await claims.claim(resources, "cpu", ["key"], worker_id="two") is None
    again = await claim(resources, "one")
    assert (again.item_id, again.fence) == (item_id, held.fence + 1)
    async with resources.database.write() as connection:
        await connection.execute(update(session_queue).values(status="pending"))
    assert await claims.fail_orphans(resources, "one", "it died") == []
    assert (await claim(resources, "two")).item_id == item_id
