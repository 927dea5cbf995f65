"""Hints between servers over a real PostgreSQL database."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from invokeclone.kit.sql.postgres_database import PostgresDatabase
from invokeclone.server.peers import hints as peers
from invokeclone.server.peers.hints import Hint, PeerHints, pack
from tests.postgres import PostgresServer

WAKE = {"kind": "wake"}


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_hints_reach_the_other_server_also_after_the_connections_were_cut(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "RECONNECT_S", 0.01)
    address = postgres.clean_database()
    databases = [PostgresDatabase(address), PostgresDatabase(address)]
    received: list[list[Hint]] = [[], []]
    servers = [PeerHints(database, got.append) for database, got in zip(databases, received, strict=True)]
    for server in servers:
        await server.start()
    await until(lambda: received == [[WAKE], [WAKE]])
    cancel = {"kind": "cancel", "item_id": 1, "has_begun": True}
    names = {"kind": "images_deleted", "names": [f"{number:040}.png" for number in range(1000)]}
    servers[0].share(cancel)
    servers[0].share(names)
    await until(lambda: sum(len(hint.get("names", [])) for hint in received[1]) == 1000)
    assert received[1][:2] == [WAKE, cancel]
    assert received[0] == [WAKE], "a server does not get its own hints"

    postgres.empty(address)  # cuts all connections
    await until(lambda: received[0] == [WAKE, WAKE] and received[1][-1] == WAKE)
    servers[1].share(cancel)
    await until(lambda: received[0][-1] == cancel)
    for server in servers:
        await server.stop()
    for database in databases:
        await database.close()


def test_texts_stay_below_the_limit_of_postgresql() -> None:
    many = [{"kind": "cancel", "item_id": number, "has_begun": False} for number in range(500)]
    long = {"kind": "models_changed", "keys": ["é" * 100] * 300}
    texts = list(pack("0" * 32, [*many, long]))
    assert all(len(text.encode()) < 8000 for text in texts)
    hints = [hint for text in texts for hint in orjson.loads(text)["hints"]]
    assert hints[:500] == many
    assert sum(len(hint["keys"]) for hint in hints[500:]) == 300


async def test_one_of_two_holders_gets_a_lock(postgres: PostgresServer) -> None:
    address = postgres.clean_database()
    first, second = PostgresDatabase(address), PostgresDatabase(address)
    async with first.try_lock(5) as is_held, second.try_lock(5) as is_held_too, second.try_lock(6) as other:
        assert (is_held, is_held_too, other) == (True, False, True)
    async with second.try_lock(5) as is_held:
        assert is_held
    await first.close()
    await second.close()


async def test_locks_of_keys_are_waited_for(postgres: PostgresServer) -> None:
    address = postgres.clean_database()
    first, second = PostgresDatabase(address), PostgresDatabase(address)
    order: list[str] = []

    async def use(database: PostgresDatabase, keys: list[int], name: str) -> None:
        async with database.lock(keys):
            order.append(f"{name} begins")
            await asyncio.sleep(0.05)
            order.append(f"{name} ends")

    async with first.lock([2, 1]):
        tasks = [asyncio.create_task(use(server, [3, 2], "other")) for server in (first, second)]
        async with second.lock([-5]):  # waits for none of them
            order.append("one")
    await asyncio.gather(*tasks)
    assert order == ["one", *["other begins", "other ends"] * 2]
    await first.close()
    await second.close()
