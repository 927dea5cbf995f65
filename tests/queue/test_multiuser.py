"""The queue with several users: what each sees of the others' items, what each may do, and whose turn it is."""

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
from invokeclone.queue import claims
from invokeclone.queue.schemas import SessionQueueItem, SessionQueueItemSummary
from invokeclone.users.current import identify
from tests.accounts import Account, account

BASE = "http://test/api/v1/queue/default/"
OPEN = {
    "item_id", "queue_id", "status", "status_sequence", "device", "created_at", "updated_at", "started_at", "completed_at"
}  # fmt: skip


class MultiuserQueue:
    """A client for each of admin, alice and bob, and for somebody without a token."""

    def __init__(self, resources: Resources, make: Any) -> None:
        self.resources, self._make = resources, make
        self.accounts: dict[str, Account] = {}
        self.clients: dict[str, httpx.AsyncClient] = {}

    def __getattr__(self, name: str) -> httpx.AsyncClient:
        return self.clients[name]

    async def add(self, name: str, *, prepend: bool = False, **fields: Any) -> list[int]:
        """Enqueue a batch of `name`'s; return the ids, ascending."""
        body = {"batch": self._make.batch(**fields), "prepend": prepend}
        answer = await self.clients[name].post("enqueue_batch", json=body)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["item_ids"][::-1])

    async def statuses(self) -> dict[int, str]:
        items = (await self.clients["admin"].get("list_all")).json()
        return {item["item_id"]: item["status"] for item in items}


@pytest.fixture
async def hall(resources: Resources, app: Application, make: Any) -> AsyncIterator[MultiuserQueue]:
    resources = replace(resources, settings=resources.settings.model_copy(update={"multiuser": True}))
    app.services.add(Resources, resources)
    app.router.dependencies.append(Depends(identify))
    new_hall = MultiuserQueue(resources, make)
    async with AsyncExitStack() as stack:
        for name in ("admin", "alice", "bob", "nobody"):
            headers = {}
            if name != "nobody":
                new_hall.accounts[name] = await account(resources.database, name, is_admin=name == "admin")
                headers = new_hall.accounts[name].headers
            client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE, headers=headers)
            new_hall.clients[name] = await stack.enter_async_context(client)
        yield new_hall


@pytest.fixture
async def alices(hall: MultiuserQueue, make: Any) -> dict[str, Any]:
    """Enqueue an item of alice's with everything that others must not see."""
    data = [[make.datum("a", "text", "a secret wish")]]
    (item_id,) = await hall.add("alice", batch_id="b", origin="o", destination="d", data=data, prepend=True)
    return dict((await hall.alice.get(f"i/{item_id}")).json())


def check_redacted(item: dict[str, Any], whole: dict[str, Any]) -> None:
    for field in OPEN:
        assert item[field] == whole.get(field), field
    for field in ("user_id", "batch_id", "session_id"):
        assert item[field] == "redacted"
    for field in (
        set(SessionQueueItem.model_fields) - OPEN - {"user_id", "batch_id", "session_id", "session", "priority"}
    ):
        assert item[field] is None, field
    assert item["priority"] == 0
    session = item["session"]
    assert (session["id"], session["graph"]["nodes"], session["graph"]["edges"]) == ("redacted", {}, [])
    SessionQueueItem.model_validate(item)


async def test_owner_and_admin_see_everything(hall: MultiuserQueue, alices: dict[str, Any]) -> None:
    for client in (hall.alice, hall.admin):
        (item,) = (await client.get("list_all")).json()
        assert item["session"]["graph"]["nodes"]["a"]["text"] == "a secret wish"
        assert (item["user_id"], item["user_email"], item["user_display_name"]) == (
            hall.accounts["alice"].user_id,
            "alice@example.com",
            "Alice",
        )


async def test_other_users_see_redacted_items(hall: MultiuserQueue, alices: dict[str, Any]) -> None:
    number = alices["item_id"]
    whole = (await hall.alice.get("next")).json()
    for path in ("list_all", "items_by_ids", "next", "current"):
        if path == "current":
            await claims.claim(hall.resources, "cpu")
            whole = (await hall.alice.get("current")).json()
        if path == "items_by_ids":
            answer = await hall.bob.post(path, json={"item_ids": [number]})
        else:
            answer = await hall.bob.get(path)
        body = answer.json()
        item = body[0] if isinstance(body, list) else body
        check_redacted(item, whole)
        for secret in ("a secret wish", "alice", "Alice", hall.accounts["alice"].user_id):
            assert secret not in answer.text, path
    single = await hall.bob.get(f"i/{number}")
    assert set(single.json()) == {field for field in OPEN if whole[field] is not None} | {
        "user_id", "batch_id", "session_id", "priority", "session"
    }  # fmt: skip
    assert "secret" not in single.text
    summary = (await hall.bob.post("item_summaries_by_ids", json={"item_ids": [number]})).json()[0]
    SessionQueueItemSummary.model_validate(summary)
    assert (summary["user_id"], summary["batch_id"]) == ("redacted", "redacted")
    for field in ("origin", "destination", "user_display_name", "user_email", "field_values", "parent_item_id"):
        assert summary[field] is None
    assert (await hall.bob.get("item_ids")).json() == {"item_ids": [number], "total_count": 1}
    assert (await hall.bob.get("list_all", params={"destination": "d"})).json() == [], "not even where it goes to"


async def test_current_item_prefers_own_items(hall: MultiuserQueue) -> None:
    await hall.add("alice")
    (bobs_item,) = await hall.add("bob")
    for _ in range(2):
        await claims.claim(hall.resources, "cpu")
    current = (await hall.bob.get("current")).json()
    assert (current["item_id"], current["user_id"]) == (bobs_item, hall.accounts["bob"].user_id)


async def test_status_counts_all_and_own_items_and_shows_own_running_item(hall: MultiuserQueue) -> None:
    (running, _) = await hall.add("alice", runs=2)
    await hall.add("bob", runs=3)
    await claims.claim(hall.resources, "cpu")
    statuses = {name: (await hall.clients[name].get("status")).json()["queue"] for name in ("alice", "bob", "admin")}
    for status in statuses.values():
        assert (status["pending"], status["in_progress"], status["total"]) == (4, 1, 5)
    user_counts = {name: (status["user_pending"], status["user_in_progress"]) for name, status in statuses.items()}
    assert user_counts == {"alice": (1, 1), "bob": (3, 0), "admin": (0, 0)}
    assert [statuses[name]["item_id"] for name in ("alice", "bob", "admin")] == [running, None, running]
    assert (statuses["bob"]["batch_id"], statuses["bob"]["session_id"]) == (None, None)


async def test_batch_and_destination_counts_cover_only_own_items(hall: MultiuserQueue, alices: dict[str, Any]) -> None:
    batch = {name: (await hall.clients[name].get("b/b/status")).json() for name in ("alice", "bob", "admin")}
    assert [batch[name]["total"] for name in ("alice", "bob", "admin")] == [1, 0, 1]
    assert (batch["alice"]["origin"], batch["bob"]["origin"], batch["bob"]["destination"]) == ("o", None, None)
    query = {"destination": "d"}
    for name, total in (("alice", 1), ("bob", 0), ("admin", 1)):
        counted = await hall.clients[name].get("counts_by_destination", params=query)
        assert counted.json()["total"] == total


async def test_other_users_items_cannot_be_canceled_deleted_or_retried(
    hall: MultiuserQueue, alices: dict[str, Any]
) -> None:
    number = alices["item_id"]
    assert (await hall.bob.put(f"i/{number}/cancel")).status_code == 403
    assert (await hall.bob.delete(f"i/{number}")).status_code == 403
    assert await hall.statuses() == {number: "pending"}
    assert (await hall.alice.put(f"i/{number}/cancel")).json()["status"] == "canceled"
    assert (await hall.bob.put("retry_items_by_id", json=[number])).status_code == 403
    assert (await hall.admin.put("retry_items_by_id", json=[number])).json()["retried_item_ids"] == [number]
    again = (await hall.alice.get("next")).json()
    assert (again["user_id"], again["retried_from_item_id"]) == (hall.accounts["alice"].user_id, number)
    assert (await hall.admin.delete(f"i/{number}")).status_code == 200


BULK = [
    ("put", "cancel_all_except_current", None, "canceled"),
    ("put", "cancel_by_batch_ids", {"batch_ids": ["b"]}, "canceled"),
    ("put", "cancel_by_destination?destination=d", None, "canceled"),
    ("put", "delete_all_except_current", None, "deleted"),
    ("delete", "d/d", None, "deleted"),
    ("put", "clear", None, "deleted"),
]


@pytest.mark.parametrize(("method", "path", "body", "word"), BULK)
async def test_bulk_actions_affect_own_items_and_all_items_for_admins(
    hall: MultiuserQueue, method: str, path: str, body: Any, word: str
) -> None:
    for name in ("alice", "bob"):
        await hall.add(name, batch_id="b", destination="d", runs=2)
    first = await hall.bob.request(method, path, json=body)
    assert first.json() == {word: 2}
    alices_items = [item for item in (await hall.alice.get("list_all")).json() if item["user_id"] != "redacted"]
    assert [item["status"] for item in alices_items] == ["pending", "pending"]
    second = await hall.admin.request(method, path, json=body)
    assert second.json()[word] >= 2
    assert "pending" not in (await hall.statuses()).values()


async def test_prune_deletes_only_own_items(hall: MultiuserQueue) -> None:
    for name in ("alice", "bob"):
        await hall.add(name)
    await hall.admin.put("cancel_all_except_current")
    assert (await hall.bob.put("prune")).json() == {"deleted": 1}
    assert len(await hall.statuses()) == 1
    assert (await hall.admin.put("prune")).json() == {"deleted": 1}


async def test_clear_event_names_the_user_whose_items_were_cleared(hall: MultiuserQueue, events: Any) -> None:
    await hall.add("bob")
    await hall.bob.put("clear")
    await hall.admin.put("clear")
    user_ids = [event.user_id for event in events.sent if event.name == "queue_cleared"]
    assert user_ids == [hall.accounts["bob"].user_id, None]


async def test_only_admins_control_the_processor(hall: MultiuserQueue) -> None:
    for path in ("processor/pause", "processor/resume"):
        assert (await hall.bob.put(path)).status_code == 403
        assert (await hall.admin.put(path)).status_code == 200


async def test_users_take_turns_and_priority_only_orders_own_items(hall: MultiuserQueue) -> None:
    a1, a2, a3 = await hall.add("alice", runs=3)
    b1, b2 = await hall.add("bob", runs=2)
    (a4,) = await hall.add("alice", prepend=True)
    taken = []
    for _ in range(6):
        item = await claims.claim(hall.resources, "cpu")
        assert item
        taken.append(item.item_id)
        await claims.finish(hall.resources, item.item_id, "completed")
        await asyncio.sleep(0.002)  # turns go by milliseconds
    # A prepended item is alice's best, and bob's first one is older: neither has been served, the lower id begins.
    assert taken == [b1, a4, b2, a1, a2, a3]


async def test_fifo_mode_ignores_turns(hall: MultiuserQueue) -> None:
    settings = hall.resources.settings.model_copy(update={"session_queue_mode": "FIFO"})
    resources = replace(hall.resources, settings=settings)
    alices = await hall.add("alice", runs=2)
    bobs = await hall.add("bob")
    taken = [(await claims.claim(resources, "cpu")) for _ in range(3)]
    assert [item.item_id for item in taken if item] == alices + bobs


async def test_single_user_mode_ignores_turns(hall: MultiuserQueue) -> None:
    settings = hall.resources.settings.model_copy(update={"multiuser": False})
    resources = replace(hall.resources, settings=settings)
    await hall.add("alice", runs=2)
    (last,) = await hall.add("bob", prepend=True)
    item = await claims.claim(resources, "cpu")
    assert item
    assert item.item_id == last


async def test_item_events_hide_other_users_running_items(hall: MultiuserQueue, events: Any) -> None:
    await hall.add("alice")
    await claims.claim(hall.resources, "cpu")
    (bobs_item,) = await hall.add("bob")
    await hall.bob.put(f"i/{bobs_item}/cancel")
    event = [event for event in events.sent if event.name == "queue_item_status_changed"][-1]
    assert event.item_id == bobs_item
    assert (event.queue_status.in_progress, event.queue_status.item_id, event.queue_status.session_id) == (
        1,
        None,
        None,
    )


async def test_requests_without_a_token_are_401(hall: MultiuserQueue) -> None:
    for method, path in (("get", "status"), ("get", "list_all"), ("put", "clear"), ("post", "enqueue_batch")):
        assert (await hall.nobody.request(method, path)).status_code == 401, path
