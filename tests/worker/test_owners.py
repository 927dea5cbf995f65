"""In multi-user mode an item runs only while its owner has an active account."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from invokeclone.queue.rows import ClaimedItem
from invokeclone.users import service, signin
from invokeclone.users.schemas import AdminUserUpdateRequest
from invokeclone.worker.interfaces.context import make_context
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.loop import Outcome
from invokeclone.worker.runner import SessionRunner
from tests.accounts import Account, account

NODES = {"one": {"type": "toy_number", "value": 3}, "sum": {"type": "toy_add", "b": 4}}
EDGE = ("one.value", "sum.a")

Run = Callable[..., Any]


@pytest.fixture
def shared(tools: Tools) -> Tools:
    resources = tools.resources
    settings = resources.settings.model_copy(update={"multiuser": True})
    return replace(tools, resources=replace(resources, settings=settings))


@pytest.fixture
async def alice(tools: Tools) -> Account:
    return await account(tools.resources.database, "alice")


@pytest.fixture
def run(canceled: threading.Event) -> Run:
    async def act(item: ClaimedItem, using: Tools) -> Outcome:
        return await asyncio.to_thread(SessionRunner(using, make_context).run, item, canceled)

    return act


async def close(tools: Tools, alice: Account) -> None:
    await service.change(tools.resources, alice.user_id, AdminUserUpdateRequest(is_active=False))


async def test_an_active_owner_s_item_runs(run: Run, make: Any, shared: Tools, alice: Account) -> None:
    assert (await run(make.item(NODES, EDGE, user_id=alice.user_id), shared)).status == "completed"
    assert (await run(make.item(NODES, EDGE, user_id="system"), shared)).status == "completed"


async def test_item_of_a_disabled_or_deleted_owner_is_canceled_before_start(
    run: Run, make: Any, shared: Tools, alice: Account, channel: Any
) -> None:
    await close(shared, alice)
    for owner in (alice.user_id, "nobody"):
        assert (await run(make.item(NODES, EDGE, user_id=owner), shared)).status == "canceled"
    assert channel.sent == []


async def test_disabling_the_owner_stops_the_item_after_the_current_node(
    run: Run, make: Any, shared: Tools, alice: Account, channel: Any
) -> None:
    class Closing:
        """Closes the account as soon as the first node is done, in the node thread."""

        def event(self, name: str, data: bytes, *, droppable: bool = False) -> None:
            channel.event(name, data, droppable=droppable)
            if name == "invocation_complete":
                shared.wait(close(shared, alice))

    outcome = await run(make.item(NODES, EDGE, user_id=alice.user_id), replace(shared, channel=Closing()))
    assert outcome.status == "canceled"
    assert channel.node_events() == [("invocation_started", "one"), ("invocation_complete", "one")]


async def test_single_user_mode_does_not_check_the_owner(
    run: Run, make: Any, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(signin, "may_run")
    assert (await run(make.item(NODES, EDGE, user_id="nobody"), tools)).status == "completed"


@pytest.mark.parametrize(("failures", "status"), [(2, "completed"), (3, "canceled")])
async def test_unreadable_database_is_queried_three_times(
    run: Run, make: Any, shared: Tools, alice: Account, monkeypatch: pytest.MonkeyPatch, failures: int, status: str
) -> None:
    monkeypatch.setattr(signin, "LOOKUP_WAIT_S", 0.001)
    real = signin.account_status
    queries = []

    async def unsure(*arguments: Any) -> Any:
        queries.append(arguments)
        if len(queries) <= failures:
            raise OperationalError("SELECT", {}, Exception("disk I/O error"))
        return await real(*arguments)

    monkeypatch.setattr(signin, "account_status", unsure)
    outcome = await run(make.item({"one": NODES["one"]}, user_id=alice.user_id), shared)
    assert outcome.status == status
